/* SPDX-License-Identifier: Apache-2.0
 * One file of a snapshot in memory.
 *
 * Its pointer says whether it is mapped: it is set after it was mapped, and
 * cleared before it is unmapped, by one thread at a time. So a child that is
 * forked between any two steps of that thread never takes for mapped what is
 * not, and may unmap what it takes for mapped. A step of which it cannot know
 * whether it was done leaves the mapping to the child as mere address space. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/mman.h>
#include <unistd.h>

#include "xos_shim.h"

void xos_part_unmap(struct xos_cache *c, struct xos_part *f)
{
	const unsigned char *p = f->p;

	if (p == NULL)
		return;
	/* A child that is forked now must not do it again: others may be at these
	 * addresses by then. */
	__atomic_store_n(&f->p, NULL, __ATOMIC_RELEASE);
	munmap((void *)(uintptr_t)p, f->size);
	__atomic_fetch_sub(&c->bytes, f->size, __ATOMIC_RELAXED);
}

/* Whether two sizes take as many pages. */
static int is_alike(size_t a, size_t b)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (a + page - 1) / page == (b + page - 1) / page;
}

int xos_part_map(struct xos_cache *c, struct xos_part *to, const struct xos_part *f)
{
	void *at = NULL, *p;

	/* In place of the former there is no such step. */
	if (to->p != NULL && f->index.slots != 0 && is_alike(to->size, f->size)) {
		at = (void *)(uintptr_t)to->p;
		__atomic_fetch_sub(&c->bytes, to->size, __ATOMIC_RELAXED);
	} else {
		xos_part_unmap(c, to);
	}
	to->index = f->index;
	if (f->index.slots == 0)
		return 1;
	p = mmap(at, f->size, PROT_READ, MAP_SHARED | (at != NULL ? MAP_FIXED : 0), f->fd, 0);
	if (p == MAP_FAILED) {
		/* Whether the former is still there depends on the kernel. */
		__atomic_store_n(&to->p, NULL, __ATOMIC_RELEASE);
		return 0;
	}
	to->size = f->size;
	__atomic_store_n(&to->p, p, __ATOMIC_RELEASE);
	__atomic_fetch_add(&c->bytes, f->size, __ATOMIC_RELAXED);
	/* Other people's names are not for this process's core files. */
	madvise(p, f->size, MADV_DONTDUMP);
	return 1;
}
