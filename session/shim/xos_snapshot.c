/* SPDX-License-Identifier: Apache-2.0
 * Reads a VO's snapshot, a few bytes of it for each lookup. Nothing in the
 * file is believed: every read is bounded by the file's end, which pread
 * itself enforces, and every record is read as a reply from a socket is. */
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
/* Root, as seen from a user namespace in which it is nobody. */
#define OVERFLOW_UID 65534
/* Slots of an index that one read takes. */
#define CHUNK 8

struct snapshot {
	int fd;
	uint32_t slots, names, ids;
};

/* Whether all of p[0..n) could be read. */
static int read_at(int fd, void *p, size_t n, uint32_t offset)
{
	ssize_t k;

	do
		k = pread(fd, p, n, (off_t)offset);
	while (k < 0 && errno == EINTR);
	return k >= 0 && (size_t)k == n;
}

static int check_header(struct snapshot *s, const char *vo, size_t vo_len, off_t size)
{
	unsigned char h[XOS_SNAP_HEADER];
	uint64_t index;

	if (!read_at(s->fd, h, sizeof h, 0) || memcmp(h, XOS_SNAP_MAGIC, 8) != 0 ||
	    xos_le32(h + 8) != XOS_SNAP_VERSION || xos_le32(h + 12) != size ||
	    xos_le32(h + 44) != vo_len || memcmp(h + 48, vo, vo_len) != 0)
		return 0;
	s->slots = xos_le32(h + 32);
	s->names = xos_le32(h + 36);
	s->ids = xos_le32(h + 40);
	index = (uint64_t)s->slots * 8;
	return s->slots != 0 && (s->slots & (s->slots - 1)) == 0 &&
	       s->names + index <= (uint64_t)size && s->ids + index <= (uint64_t)size;
}

/* Opens a VO's snapshot; s->fd must be closed after XOS_FOUND. */
static enum xos_find open_snapshot(const struct xos_place *at, const char *vo, size_t vo_len,
                                   struct snapshot *s)
{
	char path[256];
	struct stat st;
	int n;

	n = snprintf(path, sizeof path, "%s/" XOS_SNAP_PREFIX "%.*s" XOS_SNAP_SUFFIX,
	             at->snapshots, (int)vo_len, vo);
	if (n < 0 || (size_t)n >= sizeof path)
		return XOS_ABSENT;
	s->fd = xos_high_fd(open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
	if (s->fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? XOS_ABSENT
		       : errno == EACCES || errno == EPERM ? XOS_BARRED
		                                           : XOS_BROKEN;
	if (fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    (st.st_uid == at->owner || st.st_uid == OVERFLOW_UID) &&
	    (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 && st.st_size <= (off_t)XOS_SNAP_MAX &&
	    check_header(s, vo, vo_len, st.st_size))
		return XOS_FOUND;
	close(s->fd);
	return XOS_BROKEN;
}

static int read_record(const struct snapshot *s, uint32_t offset, struct xos_record *r)
{
	unsigned char h[8];
	uint32_t n;

	if (!read_at(s->fd, h, sizeof h, offset))
		return 0;
	n = xos_le32(h + 4);
	if (n > XOS_MAX_BODY)
		return 0;
	r->kind = xos_le32(h);
	r->body = malloc(n > 0 ? n : 1);
	if (r->body == NULL)
		return 0;
	if (!read_at(s->fd, r->body, n, offset + sizeof h)) {
		xos_record_free(r);
		return 0;
	}
	r->in.p = r->body;
	r->in.left = n;
	r->in.bad = 0;
	return 1;
}

/* Whether the record is the one that was asked for: a key may be another
 * name's too. */
static int is_wanted(const struct xos_record *r, const char *name, uint32_t id)
{
	struct xos_in in = r->in;
	struct xos_str own = xos_get_str(&in);
	uint32_t own_id = xos_get_id(&in);

	if (in.bad || (r->kind != XOS_SNAP_USER && r->kind != XOS_SNAP_GROUP))
		return 0;
	return name != NULL ? xos_str_is(own, name) : own_id == id;
}

/* Looks in the index at `base` for a record of this name or, without one, of
 * this id. */
static enum xos_find find(const struct snapshot *s, uint32_t base, uint32_t key, const char *name,
                          struct xos_record *r)
{
	uint32_t h = key * XOS_SNAP_MIX, slot = h ^ h >> 16, seen = 0;

	while (seen < s->slots && seen < XOS_SNAP_RUN) {
		unsigned char b[CHUNK * 8];
		uint32_t first = (slot + seen) & (s->slots - 1), i, n = s->slots - first;

		if (n > CHUNK)
			n = CHUNK;
		if (!read_at(s->fd, b, n * 8, base + first * 8))
			return XOS_BROKEN;
		for (i = 0; i < n; i++, seen++) {
			uint32_t offset = xos_le32(b + i * 8 + 4);

			if (offset == 0)
				return XOS_MISS;
			if (xos_le32(b + i * 8) != key)
				continue;
			if (!read_record(s, offset, r))
				return XOS_BROKEN;
			if (is_wanted(r, name, key))
				return XOS_FOUND;
			xos_record_free(r);
		}
	}
	return XOS_MISS;
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
	struct snapshot s;
	enum xos_find f = open_snapshot(at, vo, vo_len, &s);

	if (f != XOS_FOUND)
		return f;
	f = find(&s, s.names, name_key(name), name, r);
	close(s.fd);
	return f;
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

enum xos_find xos_find_id(const struct xos_place *at, uint32_t id, struct xos_record *r)
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
		f = open_snapshot(at, vo, n, &s);
		if (f == XOS_FOUND) {
			f = find(&s, s.ids, id, NULL, r);
			close(s.fd);
		}
		/* What is broken stays known, unless another VO has the id. */
		if (f == XOS_FOUND || result != XOS_BROKEN)
			result = f;
	}
	closedir(d);
	return result;
}

void xos_record_free(struct xos_record *r)
{
	free(r->body);
	r->body = NULL;
}
