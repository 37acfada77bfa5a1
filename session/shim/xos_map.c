/* SPDX-License-Identifier: Apache-2.0
 * Keeps snapshots mapped, so that most lookups need no file.
 *
 * A mapping is used only while three things hold, of which each is asked for
 * at every lookup:
 *
 *  - its writer has not given it up: xos-node overwrites the generation in the
 *    file before it puts another in its place, so that whoever looks after
 *    that sees the new one;
 *  - the ids that this thread has at this moment give it the right to read the
 *    file: one that drops its groups loses the VO's names;
 *  - it was opened, by the kernel's leave, in the last XOS_TRUSTED_MS: this
 *    bounds what ids do not show (another root directory or namespace,
 *    capabilities, labels, a changed mode).
 *
 * There are no locks, which a fork could leave locked for ever. A place has a
 * word of state: whether a snapshot is there, all of it, and by how many it is
 * held; each of the snapshot's two files says for itself whether it is mapped
 * (xos_part.c).
 *
 * A process that was forked while other threads were in lookups has none of
 * them, but their holds: it takes all back before its first one (xos_fork.c),
 * and a snapshot that was being changed is emptied before anyone holds it.
 * Where a thread dies in a lookup otherwise, its mapping is never unmapped, and
 * its place is lost. Without a place, lookups read the files, which is slower
 * and no less right. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <endian.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "xos_shim.h"

#define BUSY 0x80000000u  /* one thread is mapping or unmapping it */
#define LIVE 0x40000000u  /* it is there, unless it is also */
#define STALE 0x20000000u /* which must not be held anew: it may be half there */
#define HOLDERS 0x1fffffffu

/* The id that a user namespace shows for all that it does not know. */
#define OVERFLOW_ID 65534
/* As much may always be mapped; above it, an eighth of the address space that
 * the process is limited to. */
#define ALWAYS (1u << 20)
/* Milliseconds of a clock that costs no system call; never 0. */
static unsigned long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return ((unsigned long)t.tv_sec * 1000 + (unsigned long)t.tv_nsec / 1000000) | 1;
}

static int is_given_up(const struct xos_mapped *m)
{
	const void *generation = m->head.p + XOS_SNAP_GENERATION;

	return le64toh(__atomic_load_n((const uint64_t *)generation, __ATOMIC_ACQUIRE)) !=
	       m->generation;
}

static void set_stale(struct xos_mapped *m)
{
	__atomic_fetch_or(&m->state, STALE, __ATOMIC_RELAXED);
}

void xos_let_go(struct xos_mapped *m)
{
	__atomic_fetch_sub(&m->state, 1, __ATOMIC_RELEASE);
}

/* Holds what is live; what it is must be looked at after. */
static int hold(struct xos_mapped *m)
{
	uint32_t s = __atomic_load_n(&m->state, __ATOMIC_RELAXED);

	while ((s & (BUSY | LIVE | STALE)) == LIVE && (s & HOLDERS) != HOLDERS)
		if (__atomic_compare_exchange_n(&m->state, &s, s + 1, 0, __ATOMIC_ACQUIRE,
		                                __ATOMIC_RELAXED))
			return 1;
	return 0;
}

/* Whether what is held may be used. */
static int is_good(struct xos_mapped *m, struct xos_ids *who)
{
	if (is_given_up(m)) {
		set_stale(m);
		return 0;
	}
	return xos_has_right(m, who);
}

struct xos_mapped *xos_hold(struct xos_cache *c, const char *vo, size_t vo_len,
                            struct xos_ids *who)
{
	struct xos_mapped *m;

	if (!xos_is_settled(c))
		return NULL;
	for (m = c->mapped; m < c->mapped + XOS_CACHED; m++) {
		if (!hold(m))
			continue;
		if (m->vo_len == vo_len && memcmp(m->vo, vo, vo_len) == 0 && is_good(m, who))
			return m;
		xos_let_go(m);
	}
	return NULL;
}

struct xos_mapped *xos_hold_at(struct xos_cache *c, unsigned i, struct xos_ids *who)
{
	struct xos_mapped *m = &c->mapped[i];

	if (!xos_is_settled(c) || !hold(m))
		return NULL;
	if (is_good(m, who))
		return m;
	xos_let_go(m);
	return NULL;
}

int xos_is_fresh(const struct xos_mapped *m)
{
	return now() - __atomic_load_n(&m->checked, __ATOMIC_RELAXED) <= XOS_TRUSTED_MS;
}

int xos_is_same(struct xos_mapped *m, const struct stat *st)
{
	if (st->st_dev != m->dev || st->st_ino != m->ino || (size_t)st->st_size != m->head.size) {
		set_stale(m);
		return 0;
	}
	__atomic_store_n(&m->checked, now(), __ATOMIC_RELAXED);
	return 1;
}

/* Takes a place in this state, which says that nobody holds it, for this
 * thread alone. What is mapped there stays for now. */
static int seize(struct xos_mapped *m, uint32_t state)
{
	return __atomic_compare_exchange_n(&m->state, &state, BUSY, 0, __ATOMIC_ACQUIRE,
	                                   __ATOMIC_RELAXED);
}

/* Unmaps what a seized place has. */
static void empty(struct xos_cache *c, struct xos_mapped *m)
{
	xos_part_unmap(c, &m->head);
	xos_part_unmap(c, &m->base);
}

/* A place to map into: a stale or empty one, or else one whose turn it is.
 * Other stale ones are emptied meanwhile. */
static struct xos_mapped *place(struct xos_cache *c)
{
	struct xos_mapped *m, *found = NULL;
	unsigned i;

	for (m = c->mapped; m < c->mapped + XOS_CACHED; m++) {
		if (!seize(m, LIVE | STALE) && (found != NULL || !seize(m, 0)))
			continue;
		if (found == NULL) {
			found = m;
			continue;
		}
		empty(c, m);
		__atomic_store_n(&m->state, 0, __ATOMIC_RELEASE);
	}
	for (i = 0; found == NULL && i < XOS_CACHED; i++) {
		m = &c->mapped[__atomic_fetch_add(&c->turn, 1, __ATOMIC_RELAXED) % XOS_CACHED];
		if (seize(m, LIVE))
			found = m;
	}
	return found;
}

static size_t size_of(const struct xos_part *f)
{
	return f->p != NULL ? f->size : 0;
}

void xos_take_back(struct xos_cache *c)
{
	struct xos_mapped *m;
	size_t bytes = 0;

	for (m = c->mapped; m < c->mapped + XOS_CACHED; m++) {
		uint32_t s = __atomic_load_n(&m->state, __ATOMIC_RELAXED) & ~HOLDERS;

		/* One was changing it. What it had not noted as mapped, or no more,
		 * stays as it is: that may be the work of others by now. */
		if ((s & BUSY) != 0)
			s = LIVE | STALE;
		bytes += size_of(&m->head) + size_of(&m->base);
		__atomic_store_n(&m->state, s, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&c->bytes, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&c->filling, 0, __ATOMIC_RELAXED);
}

/* Whether so much more of the address space may be taken from the host. */
static int is_affordable(const struct xos_cache *c, size_t size)
{
	size_t all = __atomic_load_n(&c->bytes, __ATOMIC_RELAXED) + size;
	struct rlimit most;

	if (all <= ALWAYS)
		return 1;
	if (sizeof(void *) < 8 || getrlimit(RLIMIT_AS, &most) != 0)
		return 0;
	return most.rlim_cur == RLIM_INFINITY || all <= most.rlim_cur / 8;
}

/* Maps the snapshot into m, which is this thread's. */
static int map(struct xos_cache *c, struct xos_mapped *m, const struct xos_opened *o,
               const char *vo, size_t vo_len, struct xos_ids *who)
{
	if (xos_part_map(c, &m->head, &o->head) && xos_part_map(c, &m->base, &o->base)) {
		__atomic_store_n(&m->checked, now(), __ATOMIC_RELAXED);
		m->dev = o->st.st_dev;
		m->ino = o->st.st_ino;
		m->owner = o->st.st_uid;
		m->group = o->st.st_gid;
		m->generation = o->generation;
		m->vo_len = vo_len;
		memcpy(m->vo, vo, vo_len);
		/* The header may be older than the mapping. */
		if (!is_given_up(m) && xos_has_right(m, who))
			return 1;
	}
	empty(c, m);
	return 0;
}

struct xos_mapped *xos_keep(struct xos_cache *c, const struct xos_opened *o, const char *vo,
                            size_t vo_len, struct xos_ids *who)
{
	const struct stat *st = &o->st;
	struct xos_mapped *m;
	uint32_t idle = 0;

	if (o->generation == 0 || st->st_uid == OVERFLOW_ID || st->st_gid == OVERFLOW_ID ||
	    (st->st_mode & (S_IRUSR | S_IRGRP)) != (S_IRUSR | S_IRGRP) || !xos_settle(c) ||
	    !is_affordable(c, o->head.size + o->base.size))
		return NULL;
	/* One at a time, lest many threads that begin together fill all places
	 * with one snapshot. */
	if (!__atomic_compare_exchange_n(&c->filling, &idle, 1, 0, __ATOMIC_ACQUIRE,
	                                 __ATOMIC_RELAXED))
		return NULL;
	m = place(c);
	if (m != NULL) {
		int mapped = map(c, m, o, vo, vo_len, who);

		__atomic_store_n(&m->state, mapped ? LIVE | 1 : 0, __ATOMIC_RELEASE);
		m = mapped ? m : NULL;
	}
	__atomic_store_n(&c->filling, 0, __ATOMIC_RELEASE);
	return m;
}
