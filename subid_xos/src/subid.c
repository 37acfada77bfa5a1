/* SPDX-License-Identifier: Apache-2.0
 * The functions that libsubid calls: whose which subordinate ids are. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "xos_subid.h"

#define EXPORT __attribute__((visibility("default")))

/* Of one user; no more of the machine's own lines are looked at. */
#define MOST_RANGES 1024

static const struct range grid = {XOS_FIRST_ID, XOS_LAST_ID - XOS_FIRST_ID + 1ul};

int overlap(struct range a, struct range b)
{
	return a.start < b.start + b.count && b.start < a.start + a.count;
}

/* Whether one lies in the other. */
static int is_within(struct range a, struct range b)
{
	return a.start >= b.start && a.start - b.start <= b.count && a.count <= b.count - (a.start - b.start);
}

static enum answer ask(int op, struct xos_out *request, struct xos_reply *reply)
{
	if (xos_call(&xos_here, op, request, XOS_LOOKUP_MS, reply) < 0)
		return NOT_REACHED;
	switch (reply->status) {
	case XOS_ST_OK:
		return OK;
	case XOS_ST_NOTFOUND:
	case XOS_ST_DENIED:
	case XOS_ST_INVALID:
		return NO_SUCH_USER;
	}
	return FAILED;
}

/* Refuses what the machine has given to a user of its own as well. */
static enum answer is_free(struct range r)
{
	enum kind kind;
	struct lines l;
	struct line line;
	enum answer a = OK;

	for (kind = SUBUID; kind <= SUBGID && a == OK; kind++) {
		a = lines_open(&l, kind);
		while (a == OK && lines_next(&l, &line))
			if (overlap(line.range, r))
				a = FAILED;
		lines_close(&l);
	}
	return a;
}

/* The range of a grid user, which is one, for uids and gids alike. */
static enum answer grid_range(const char *name, struct range *r)
{
	unsigned char mem[128];
	struct xos_reply reply;
	struct xos_out q;
	enum answer a;

	xos_out_init(&q, mem, sizeof mem);
	xos_put_str(&q, name);
	a = ask(XOS_OP_SUBIDS, &q, &reply);
	if (a == OK) {
		r->start = xos_get_id(&reply.in);
		r->count = xos_get_u32(&reply.in);
		if (!xos_in_end(&reply.in) || r->count == 0 || !is_within(*r, grid))
			a = FAILED;
	}
	xos_reply_free(&reply);
	return a == OK ? is_free(*r) : a;
}

static enum answer grid_owner(uint32_t id, uid_t *uid)
{
	unsigned char mem[64];
	struct xos_reply reply;
	struct xos_out q;
	enum answer a;

	xos_out_init(&q, mem, sizeof mem);
	xos_put_u32(&q, id);
	a = ask(XOS_OP_SUBID_OWNER, &q, &reply);
	if (a == OK) {
		*uid = xos_get_id(&reply.in);
		if (!xos_in_end(&reply.in))
			a = FAILED;
	}
	xos_reply_free(&reply);
	return a;
}

/* A list that grows. */
static int append(struct range **list, int *n, struct range r)
{
	struct range *more;

	if (*n >= MOST_RANGES)
		return 0;
	more = realloc(*list, ((size_t)*n + 1) * sizeof *more);
	if (more == NULL)
		return 0;
	*list = more;
	more[(*n)++] = r;
	return 1;
}

/* The ranges of a local user, for the caller to free. What is the grid's no
 * line can give away. */
static enum answer local_ranges(const char *owner, enum kind kind, struct range **list, int *n)
{
	struct lines l;
	struct line line;
	enum answer a = lines_open(&l, kind);

	*list = NULL;
	*n = 0;
	while (a == OK && lines_next(&l, &line))
		if (!overlap(line.range, grid) && is_same_user(line.owner, owner) &&
		    !append(list, n, line.range))
			a = FAILED;
	lines_close(&l);
	if (a != OK) {
		free(*list);
		*list = NULL;
		*n = 0;
	}
	return a;
}

/* The ranges of anybody. */
static enum answer ranges(const char *owner, enum kind kind, struct range **list, int *n)
{
	char buffer[4096];
	struct passwd pw, *p;
	struct xos_str given;
	const char *vo;
	struct range r;
	enum answer a;
	uid_t uid;

	*list = NULL;
	*n = 0;
	if (owner == NULL || strnlen(owner, 256) == 256 || (kind != SUBUID && kind != SUBGID))
		return FAILED;
	given = (struct xos_str){owner, (uint32_t)strlen(owner)};
	/* libsubid lets a uid stand for a name. */
	if (given.len > 0 && strspn(owner, "0123456789") == given.len && uid_of(given, &uid) &&
	    xos_is_id(uid)) {
		if (getpwuid_r(uid, &pw, buffer, sizeof buffer, &p) != 0 || p == NULL)
			return NO_SUCH_USER;
		owner = p->pw_name;
	}
	if (!xos_is_login(owner, &vo))
		return local_ranges(owner, kind, list, n);
	a = grid_range(owner, &r);
	if (a == OK && !append(list, n, r))
		a = FAILED;
	return a;
}

/* Whether one user's ranges have all of these ids. */
static bool covers(const struct range *list, int n, struct range wanted)
{
	int i;

	while (wanted.count > 0) {
		unsigned long has = 0;

		for (i = 0; i < n; i++) {
			struct range r = list[i];

			if (wanted.start >= r.start && wanted.start - r.start < r.count &&
			    r.count - (wanted.start - r.start) > has)
				has = r.count - (wanted.start - r.start);
		}
		if (has == 0)
			return false;
		if (has >= wanted.count)
			return true;
		wanted.start += has;
		wanted.count -= has;
	}
	return false;
}

/* A cancelled thread leaves no descriptor open, and errno stays. */
struct entry {
	int saved, cancel;
};

static struct entry enter(void)
{
	struct entry e = {errno, 0};

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &e.cancel);
	return e;
}

static enum answer leave(struct entry e, enum answer a)
{
	pthread_setcancelstate(e.cancel, NULL);
	errno = e.saved;
	return a;
}

EXPORT enum answer shadow_subid_has_range(const char *owner, unsigned long start,
                                          unsigned long count, enum kind kind, bool *result)
{
	struct entry e = enter();
	struct range *list;
	enum answer a;
	int n;

	*result = false;
	if (count == 0 || start > HIGHEST || count - 1 > HIGHEST - start)
		return leave(e, OK);
	a = ranges(owner, kind, &list, &n);
	if (a == OK)
		*result = covers(list, n, (struct range){start, count});
	free(list);
	return leave(e, a);
}

EXPORT enum answer shadow_subid_list_owner_ranges(const char *owner, enum kind kind,
                                                  struct range **list, int *count)
{
	struct entry e = enter();

	return leave(e, ranges(owner, kind, list, count));
}

EXPORT enum answer shadow_subid_find_subid_owners(unsigned long id, enum kind kind, uid_t **uids,
                                                  int *count)
{
	struct entry e = enter();
	struct lines l;
	struct line line;
	enum answer a;
	uid_t uid;

	*uids = NULL;
	*count = 0;
	if (id > HIGHEST || (kind != SUBUID && kind != SUBGID))
		return leave(e, FAILED);
	if (xos_is_id((uint32_t)id)) {
		a = grid_owner((uint32_t)id, &uid);
		if (a == OK && (*uids = malloc(sizeof uid)) == NULL)
			a = FAILED;
		if (a == OK) {
			(*uids)[(*count)++] = uid;
		}
		return leave(e, a == NO_SUCH_USER ? OK : a);
	}
	a = lines_open(&l, kind);
	while (a == OK && *count < MOST_RANGES && lines_next(&l, &line)) {
		uid_t *more;

		if (!overlap(line.range, (struct range){id, 1}) || !uid_of(line.owner, &uid))
			continue;
		more = realloc(*uids, ((size_t)*count + 1) * sizeof uid);
		if (more == NULL) {
			a = FAILED;
			break;
		}
		*uids = more;
		more[(*count)++] = uid;
	}
	lines_close(&l);
	return leave(e, a);
}

EXPORT void shadow_subid_free(void *p)
{
	free(p);
}
