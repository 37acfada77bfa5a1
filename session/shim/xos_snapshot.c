/* SPDX-License-Identifier: Apache-2.0
 * Reads a VO's snapshot, a few bytes of it for each lookup: from a mapping
 * that is kept (xos_map.c), or else with pread. Nothing in a file is believed:
 * every read is bounded by the file's end, and every record is read as a reply
 * from a socket is. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xos_shim.h"

/* More VOs than this are not looked through for an id. */
#define MAX_VOS 1024
/* How often a head is looked for again whose base is not there. */
#define TRIES 16
/* Slots of an index that one read takes. */
#define CHUNK 8

struct snapshot {
	struct xos_mapped *held; /* or NULL: it is open */
	struct xos_part head, base;
};

static void use(struct snapshot *s, struct xos_mapped *held)
{
	s->held = held;
	s->head = held->head;
	s->base = held->base;
}

static void leave(struct snapshot *s)
{
	struct xos_opened o = {.head = s->head, .base = s->base};

	if (s->held != NULL)
		xos_let_go(s->held);
	else
		xos_close(&o);
}

/* Reaches a VO's snapshot in its files, and the mapping `held` of it if that is
 * one: its owner lets go of it. */
static enum xos_find reach_file(const struct xos_place *at, const char *vo, size_t vo_len,
                                struct xos_mapped *held, struct xos_ids *who,
                                struct snapshot *s)
{
	struct xos_opened o;
	enum xos_find f;
	int tries = 0;

	do {
		f = xos_open(at, vo, vo_len, &o);
		if (f == XOS_FOUND && held != NULL && xos_is_same(held, &o.st)) {
			xos_close(&o);
			use(s, held);
			return XOS_FOUND;
		}
		if (held != NULL)
			xos_let_go(held);
		held = NULL;
		if (f != XOS_FOUND)
			return f;
		f = xos_open_all(at, vo, vo_len, &o);
		if (f != XOS_FOUND)
			xos_close(&o);
	} while (f == XOS_ABSENT && ++tries < TRIES);
	if (f != XOS_FOUND)
		return f == XOS_ABSENT ? XOS_BROKEN : f;
	s->held = at->cache != NULL ? xos_keep(at->cache, &o, vo, vo_len, who) : NULL;
	if (s->held != NULL) {
		xos_close(&o);
		use(s, s->held);
	} else {
		s->head = o.head;
		s->base = o.base;
	}
	return XOS_FOUND;
}

/* Reaches a VO's snapshot; leave must follow XOS_FOUND. */
static enum xos_find reach(const struct xos_place *at, const char *vo, size_t vo_len,
                           struct xos_ids *who, struct snapshot *s)
{
	struct xos_mapped *m = at->cache != NULL ? xos_hold(at->cache, vo, vo_len, who) : NULL;

	if (m == NULL || !xos_is_fresh(m))
		return reach_file(at, vo, vo_len, m, who, s);
	use(s, m);
	return XOS_FOUND;
}

static int read_record(const struct xos_part *f, uint32_t offset, struct xos_record *r)
{
	unsigned char h[8];
	uint32_t n;

	if (offset > UINT32_MAX - sizeof h || !xos_read_at(f, h, sizeof h, offset))
		return 0;
	offset += sizeof h;
	n = xos_le32(h + 4);
	if (n > XOS_MAX_BODY)
		return 0;
	r->kind = xos_le32(h);
	r->body = NULL;
	r->held = NULL;
	r->in = (struct xos_in){NULL, n, 0};
	if (f->p != NULL) {
		r->in.p = f->p + offset;
		return n <= f->size - offset;
	}
	r->in.p = r->body = malloc(n > 0 ? n : 1);
	if (r->body == NULL)
		return 0;
	if (xos_read_at(f, r->body, n, offset))
		return 1;
	xos_record_free(r);
	return 0;
}

/* Whether the record is the one that was asked for: a key may be another
 * name's too. */
static int is_wanted(const struct xos_record *r, const char *name, uint32_t id)
{
	struct xos_in in = r->in;
	struct xos_str own = xos_get_str(&in);
	uint32_t own_id = xos_get_id(&in);

	if (in.bad || r->kind < XOS_SNAP_USER || r->kind > XOS_SNAP_GONE)
		return 0;
	return name != NULL ? xos_str_is(own, name) : own_id == id;
}

/* Looks in one file for a record of this name or, without one, of this id. */
static enum xos_find look_up(const struct xos_part *f, uint32_t key, const char *name,
                             struct xos_record *r)
{
	uint32_t h = key * XOS_SNAP_MIX, slot = h ^ h >> 16, slots = f->index.slots, seen = 0;
	uint32_t index = name != NULL ? f->index.names : f->index.ids;

	while (seen < slots && seen < XOS_SNAP_RUN) {
		unsigned char b[CHUNK * 8];
		uint32_t first = (slot + seen) & (slots - 1), i, n = slots - first;

		if (n > CHUNK)
			n = CHUNK;
		if (!xos_read_at(f, b, n * 8, index + first * 8))
			return XOS_BROKEN;
		for (i = 0; i < n; i++, seen++) {
			uint32_t offset = xos_le32(b + i * 8 + 4);

			if (offset == 0)
				return XOS_MISS;
			if (xos_le32(b + i * 8) != key)
				continue;
			if (!read_record(f, offset, r))
				return XOS_BROKEN;
			if (is_wanted(r, name, key))
				return XOS_FOUND;
			xos_record_free(r);
		}
	}
	return XOS_MISS;
}

/* Looks for a name or, without one, an id, and leaves the snapshot: what is
 * found in a mapping goes on holding it. */
static enum xos_find find(struct snapshot *s, const char *name, uint32_t key,
                          struct xos_record *r)
{
	enum xos_find f = look_up(&s->head, key, name, r);

	if (f == XOS_MISS && s->base.index.slots != 0)
		f = look_up(&s->base, key, name, r);
	if (f == XOS_FOUND && r->kind == XOS_SNAP_GONE) {
		xos_record_free(r);
		f = XOS_MISS;
	}
	if (f == XOS_FOUND && s->held != NULL)
		r->held = s->held;
	else
		leave(s);
	return f;
}

static uint32_t name_key(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name != '\0'; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

enum xos_find xos_find_name(const struct xos_place *at, const char *vo, size_t vo_len,
                            const char *name, struct xos_record *r)
{
	struct xos_ids who;
	struct snapshot s;
	enum xos_find f;

	who.known = 0;
	f = reach(at, vo, vo_len, &who, &s);
	return f == XOS_FOUND ? find(&s, name, name_key(name), r) : f;
}

/* The VO of a snapshot's file name; its length is 0 if it is none. */
static size_t vo_of_file(const char *file, const char **vo)
{
	size_t n = strlen(file), around = strlen(XOS_SNAP_PREFIX XOS_SNAP_SUFFIX);

	if (n <= around || strncmp(file, XOS_SNAP_PREFIX, strlen(XOS_SNAP_PREFIX)) != 0 ||
	    strcmp(file + n - strlen(XOS_SNAP_SUFFIX), XOS_SNAP_SUFFIX) != 0)
		return 0;
	*vo = file + strlen(XOS_SNAP_PREFIX);
	return xos_is_part(*vo, n - around) ? n - around : 0;
}

/* Looks for an id in all snapshots that this process may read. */
static enum xos_find find_id(const struct xos_place *at, uint32_t id, struct xos_ids *who,
                             struct xos_record *r)
{
	enum xos_find result = XOS_ABSENT;
	struct dirent *e;
	int seen = 0;
	int fd = xos_high_fd(open(at->snapshots, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	DIR *d;

	if (fd < 0)
		return errno == ENOENT ? XOS_ABSENT : XOS_BROKEN;
	d = fdopendir(fd);
	if (d == NULL) {
		close(fd);
		return XOS_BROKEN;
	}
	while (result != XOS_FOUND && seen < MAX_VOS && (e = readdir(d)) != NULL) {
		struct snapshot s;
		const char *vo;
		size_t n = vo_of_file(e->d_name, &vo);
		enum xos_find f;

		if (n == 0)
			continue;
		seen++;
		f = reach(at, vo, n, who, &s);
		if (f == XOS_FOUND)
			f = find(&s, NULL, id, r);
		/* What is broken stays known, unless another VO has the id. */
		if (f == XOS_FOUND || result != XOS_BROKEN)
			result = f;
	}
	closedir(d);
	return result;
}

enum xos_find xos_find_id(const struct xos_place *at, uint32_t id, struct xos_record *r)
{
	struct xos_ids who;
	unsigned i;

	who.known = 0;
	/* No id is in two VOs. */
	for (i = 0; at->cache != NULL && i < XOS_CACHED; i++) {
		struct xos_mapped *m = xos_hold_at(at->cache, i, &who);
		struct snapshot s;

		if (m == NULL)
			continue;
		use(&s, m);
		if (!xos_is_fresh(m))
			leave(&s);
		else if (find(&s, NULL, id, r) == XOS_FOUND)
			return XOS_FOUND;
	}
	return find_id(at, id, &who, r);
}

void xos_record_free(struct xos_record *r)
{
	if (r->held != NULL)
		xos_let_go(r->held);
	else
		free(r->body);
	r->held = NULL;
	r->body = NULL;
}
