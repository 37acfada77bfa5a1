/* SPDX-License-Identifier: Apache-2.0
 * The map "group": VO groups, and the private group of each grid user. */
#include <string.h>

#include "xos_nss.h"

static const struct xos_str locked = XOS_STR("*");

static enum nss_status bad(int *err, int code)
{
	*err = code;
	return code == ERANGE ? NSS_STATUS_TRYAGAIN : NSS_STATUS_UNAVAIL;
}

enum nss_status fill_group(struct xos_in *in, struct group *gr, struct room r, int *err)
{
	struct xos_str name = xos_get_str(in);
	const char *vo;
	size_t vo_len;
	int plain;
	uint32_t i, n;

	gr->gr_gid = xos_get_id(in);
	n = xos_get_count(in, XOS_MAX_MEMBERS);
	if (in->bad)
		return bad(err, EPROTO);
	gr->gr_mem = room_ptrs(&r, (size_t)n + 1);
	gr->gr_name = room_str(&r, name);
	gr->gr_passwd = room_str(&r, locked);
	if (gr->gr_mem == NULL || gr->gr_name == NULL || gr->gr_passwd == NULL)
		return bad(err, ERANGE);
	/* A VO's group has the one ':' that its grammar allows. */
	if (!xos_is_group(gr->gr_name, &vo, &vo_len, &plain))
		return bad(err, EPROTO);
	for (i = 0; i < n; i++) {
		gr->gr_mem[i] = room_str(&r, xos_get_str(in));
		if (in->bad)
			return bad(err, EPROTO);
		if (gr->gr_mem[i] == NULL)
			return bad(err, ERANGE);
		if (!xos_is_login(gr->gr_mem[i], &vo))
			return bad(err, EPROTO);
	}
	gr->gr_mem[n] = NULL;
	return NSS_STATUS_SUCCESS;
}

enum nss_status fill_private(struct xos_in *in, struct group *gr, struct room r, int *err)
{
	struct xos_str name = xos_get_str(in);
	uint32_t uid = xos_get_id(in);
	const char *vo;

	gr->gr_gid = xos_get_id(in);
	/* The record was found by the uid: nobody gets another id's group. */
	if (in->bad || gr->gr_gid != uid)
		return bad(err, EPROTO);
	gr->gr_mem = room_ptrs(&r, 1);
	gr->gr_name = room_str(&r, name);
	gr->gr_passwd = room_str(&r, locked);
	if (gr->gr_mem == NULL || gr->gr_name == NULL || gr->gr_passwd == NULL)
		return bad(err, ERANGE);
	if (!xos_is_login(gr->gr_name, &vo))
		return bad(err, EPROTO);
	gr->gr_mem[0] = NULL;
	return NSS_STATUS_SUCCESS;
}

/* Fills gr from a snapshot's record, which it frees. */
static enum nss_status from_record(struct xos_record *rec, struct group *gr, struct room r,
                                   int *err)
{
	enum nss_status s;

	if (rec->kind == XOS_SNAP_USER)
		s = fill_private(&rec->in, gr, r, err);
	else
		s = fill_group(&rec->in, gr, r, err);
	xos_record_free(rec);
	return s;
}

static enum nss_status from_service(const struct xos_place *at, int op, const char *name,
                                    gid_t gid, struct group *gr, struct room r, int *err)
{
	unsigned char mem[128];
	struct xos_reply reply;
	struct xos_out q;
	enum nss_status s;

	xos_out_init(&q, mem, sizeof mem);
	if (name != NULL)
		xos_put_str(&q, name);
	else
		xos_put_u32(&q, gid);
	s = ask(at, op, &q, &reply, err);
	if (s == NSS_STATUS_SUCCESS) {
		s = fill_group(&reply.in, gr, r, err);
		if (s == NSS_STATUS_SUCCESS &&
		    (!xos_in_end(&reply.in) ||
		     (name != NULL ? strcmp(gr->gr_name, name) != 0 : gr->gr_gid != gid)))
			s = bad(err, EPROTO);
	}
	xos_reply_free(&reply);
	return s;
}

enum nss_status group_by_name(const struct xos_place *at, const char *name, struct group *gr,
                              struct room r, int *err)
{
	struct xos_record rec;
	const char *vo;
	size_t vo_len;
	int plain;
	enum xos_find f;

	*err = ENOENT;
	if (!xos_is_group(name, &vo, &vo_len, &plain))
		return NSS_STATUS_NOTFOUND;
	f = xos_find_name(at, vo, vo_len, name, &rec);
	if (f == XOS_FOUND)
		return from_record(&rec, gr, r, err);
	switch (after(f, plain)) {
	case ASK:
		return from_service(at, XOS_OP_GETGRNAM, name, 0, gr, r, err);
	case UNAVAILABLE:
		return NSS_STATUS_UNAVAIL;
	default:
		return NSS_STATUS_NOTFOUND;
	}
}

enum nss_status group_by_id(const struct xos_place *at, gid_t gid, struct group *gr, struct room r,
                            int *err)
{
	struct xos_record rec;
	enum xos_find f;

	*err = ENOENT;
	if (!xos_is_id(gid))
		return NSS_STATUS_NOTFOUND;
	f = xos_find_id(at, gid, &rec);
	if (f == XOS_FOUND)
		return from_record(&rec, gr, r, err);
	switch (after(f, 0)) {
	case ASK:
		return from_service(at, XOS_OP_GETGRGID, NULL, gid, gr, r, err);
	case UNAVAILABLE:
		return NSS_STATUS_UNAVAIL;
	default:
		return NSS_STATUS_NOTFOUND;
	}
}

EXPORT enum nss_status _nss_xos_getgrnam_r(const char *name, struct group *gr, char *buf,
                                           size_t len, int *errnop)
{
	struct entry e = enter();
	int err;
	enum nss_status s = group_by_name(&here, name, gr, (struct room){buf, len}, &err);

	return leave(e, s, err, errnop);
}

EXPORT enum nss_status _nss_xos_getgrgid_r(gid_t gid, struct group *gr, char *buf, size_t len,
                                           int *errnop)
{
	struct entry e = enter();
	int err;
	enum nss_status s = group_by_id(&here, gid, gr, (struct room){buf, len}, &err);

	return leave(e, s, err, errnop);
}
