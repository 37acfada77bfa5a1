/* SPDX-License-Identifier: Apache-2.0
 * Opens the files of a VO's snapshot, the head and the base that it names, if
 * they are what they should be. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "xos_shim.h"

/* Root, as seen from a user namespace in which it is nobody. */
#define OVERFLOW_UID 65534

int xos_read_at(const struct xos_part *f, void *b, size_t n, uint32_t offset)
{
	ssize_t k;

	if (f->p != NULL) {
		if (offset > f->size || n > f->size - offset)
			return 0;
		memcpy(b, f->p + offset, n);
		return 1;
	}
	do
		k = pread(f->fd, b, n, (off_t)offset);
	while (k < 0 && errno == EINTR);
	return k >= 0 && (size_t)k == n;
}

/* Opens a file that only its owner, the writer, can have written. */
static enum xos_find open_file(const struct xos_place *at, const char *path, struct xos_part *f,
                               struct stat *st)
{
	*f = (struct xos_part){.fd = -1};
	f->fd = xos_high_fd(open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
	if (f->fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? XOS_ABSENT
		       : errno == EACCES || errno == EPERM ? XOS_BARRED
		                                           : XOS_BROKEN;
	if (fstat(f->fd, st) == 0 && S_ISREG(st->st_mode) &&
	    (st->st_uid == at->owner || st->st_uid == OVERFLOW_UID) &&
	    (st->st_mode & (S_IWGRP | S_IWOTH)) == 0 && st->st_size <= (off_t)XOS_SNAP_MAX) {
		f->size = (size_t)st->st_size;
		return XOS_FOUND;
	}
	close(f->fd);
	f->fd = -1;
	return XOS_BROKEN;
}

static uint64_t le64(const unsigned char *p)
{
	return xos_le32(p) | (uint64_t)xos_le32(p + 4) << 32;
}

/* Reads the header of a file, which must be of this VO. */
static int read_header(struct xos_part *f, const char *vo, size_t vo_len, uint64_t *generation,
                       uint64_t *based)
{
	unsigned char b[XOS_SNAP_BASED_HEADER];
	uint32_t version;
	struct xos_index x;
	uint64_t index;

	if (!xos_read_at(f, b, sizeof b, 0) || memcmp(b, XOS_SNAP_MAGIC, 8) != 0 ||
	    xos_le32(b + 12) != f->size || xos_le32(b + 44) != vo_len ||
	    memcmp(b + 48, vo, vo_len) != 0)
		return 0;
	version = xos_le32(b + 8);
	*generation = le64(b + XOS_SNAP_GENERATION);
	*based = version == XOS_SNAP_BASED ? le64(b + XOS_SNAP_HEADER) : 0;
	if (version == XOS_SNAP_BASED ? *based == 0 : version != XOS_SNAP_VERSION)
		return 0;
	x = (struct xos_index){xos_le32(b + 32), xos_le32(b + 36), xos_le32(b + 40)};
	index = (uint64_t)x.slots * 8;
	if (x.slots == 0 || (x.slots & (x.slots - 1)) != 0 || x.names + index > f->size ||
	    x.ids + index > f->size)
		return 0;
	f->index = x;
	return 1;
}

enum xos_find xos_open(const struct xos_place *at, const char *vo, size_t vo_len,
                       struct xos_opened *o)
{
	char path[256];
	int n = snprintf(path, sizeof path, "%s/" XOS_SNAP_PREFIX "%.*s" XOS_SNAP_SUFFIX,
	                 at->snapshots, (int)vo_len, vo);

	o->head = o->base = (struct xos_part){.fd = -1};
	o->generation = o->based = 0;
	if (n < 0 || (size_t)n >= sizeof path)
		return XOS_ABSENT;
	return open_file(at, path, &o->head, &o->st);
}

enum xos_find xos_open_all(const struct xos_place *at, const char *vo, size_t vo_len,
                           struct xos_opened *o)
{
	char path[256];
	uint64_t generation, based;
	enum xos_find f;
	struct stat st;
	int n;

	if (!read_header(&o->head, vo, vo_len, &o->generation, &o->based))
		return XOS_BROKEN;
	if (o->based == 0)
		return XOS_FOUND;
	n = snprintf(path, sizeof path,
	             "%s/" XOS_SNAP_PREFIX "%.*s.%016" PRIx64 XOS_SNAP_BASE_SUFFIX, at->snapshots,
	             (int)vo_len, vo, o->based);
	if (n < 0 || (size_t)n >= sizeof path)
		return XOS_BROKEN;
	f = open_file(at, path, &o->base, &st);
	if (f != XOS_FOUND)
		return f;
	if (st.st_uid != o->st.st_uid || st.st_gid != o->st.st_gid ||
	    !read_header(&o->base, vo, vo_len, &generation, &based) || based != 0 ||
	    generation != o->based)
		return XOS_BROKEN;
	return XOS_FOUND;
}

void xos_close(struct xos_opened *o)
{
	if (o->head.fd >= 0)
		close(o->head.fd);
	if (o->base.fd >= 0)
		close(o->base.fd);
	o->head.fd = o->base.fd = -1;
}
