/* SPDX-License-Identifier: Apache-2.0
 * The groups of a grid user, as initgroups(3) and getgrouplist(3) want them. */
#include <stdlib.h>
#include <string.h>

#include "xos_nss.h"

/* Adds a gid, unless the list has it or may not grow any more. */
static enum nss_status add(struct gids *g, gid_t gid, int *err)
{
	long i;

	for (i = 0; i < *g->used; i++)
		if ((*g->list)[i] == gid)
			return NSS_STATUS_SUCCESS;
	if (g->limit > 0 && *g->used >= g->limit)
		return NSS_STATUS_SUCCESS;
	if (*g->used >= *g->size) {
		long size = *g->size > 0 ? *g->size * 2 : 16;
		gid_t *list;

		if (g->limit > 0 && size > g->limit)
			size = g->limit;
		list = realloc(*g->list, (size_t)size * sizeof *list);
		if (list == NULL) {
			*err = ENOMEM;
			return NSS_STATUS_TRYAGAIN;
		}
		*g->list = list;
		*g->size = size;
	}
	(*g->list)[(*g->used)++] = gid;
	return NSS_STATUS_SUCCESS;
}

/* Adds the gids of a list<u32> that ends the fields: all or, if it is
 * malformed, none. */
static enum nss_status add_all(struct xos_in *in, gid_t primary, struct gids *g, int *err)
{
	struct xos_in check = *in;
	uint32_t i, n = xos_get_count(&check, XOS_MAX_GROUPS);
	enum nss_status s = NSS_STATUS_SUCCESS;

	for (i = 0; i < n; i++)
		xos_get_id(&check);
	if (!xos_in_end(&check)) {
		*err = EPROTO;
		return NSS_STATUS_UNAVAIL;
	}
	n = xos_get_count(in, XOS_MAX_GROUPS);
	for (i = 0; i < n && s == NSS_STATUS_SUCCESS; i++) {
		gid_t gid = xos_get_id(in);

		if (gid != primary)
			s = add(g, gid, err);
	}
	return s;
}

static enum nss_status from_record(struct xos_record *rec, gid_t primary, struct gids *g, int *err)
{
	enum nss_status s = NSS_STATUS_NOTFOUND;

	if (rec->kind == XOS_SNAP_USER) {
		xos_get_str(&rec->in); /* name */
		xos_get_u32(&rec->in); /* uid */
		xos_get_u32(&rec->in); /* gid */
		xos_get_str(&rec->in); /* gecos */
		xos_get_str(&rec->in); /* home */
		xos_get_str(&rec->in); /* shell */
		s = add_all(&rec->in, primary, g, err);
	}
	xos_record_free(rec);
	return s;
}

enum nss_status groups_of(const struct xos_place *at, const char *name, gid_t primary,
                          struct gids out, int *err)
{
	unsigned char mem[128];
	struct xos_record rec;
	struct xos_reply reply;
	struct xos_out q;
	const char *vo;
	enum xos_find f;
	enum nss_status s;

	*err = ENOENT;
	if (!xos_is_login(name, &vo))
		return NSS_STATUS_NOTFOUND;
	f = xos_find_name(at, vo, strlen(vo), name, &rec);
	if (f == XOS_FOUND)
		return from_record(&rec, primary, &out, err);
	switch (after(f, 0)) {
	case UNAVAILABLE:
		return NSS_STATUS_UNAVAIL;
	case NOT_FOUND:
		return NSS_STATUS_NOTFOUND;
	case ASK:
		break;
	}
	xos_out_init(&q, mem, sizeof mem);
	xos_put_str(&q, name);
	s = ask(at, XOS_OP_INITGROUPS, &q, &reply, err);
	if (s == NSS_STATUS_SUCCESS)
		s = add_all(&reply.in, primary, &out, err);
	xos_reply_free(&reply);
	return s;
}

EXPORT enum nss_status _nss_xos_initgroups_dyn(const char *user, gid_t group, long *start,
                                               long *size, gid_t **groups, long limit,
                                               int *errnop)
{
	struct entry e = enter();
	int err;
	struct gids out = {groups, start, size, limit};
	enum nss_status s = groups_of(&here, user, group, out, &err);

	return leave(e, s, err, errnop);
}
