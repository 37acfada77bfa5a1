/* SPDX-License-Identifier: Apache-2.0
 * Notices that the process is a fork's child, without a system call and
 * without a handler, which could outlive the module: by a word in a page that
 * the kernel empties in children (MADV_WIPEONFORK, Linux 4.14).
 *
 * In a child nobody can hold a mapping before the word says again that it may
 * be used. So whatever is held then is by threads of the parent, and the first
 * thread to come here takes it all back; others do without the cache
 * meanwhile. The one thread that a child has got may itself have been in a
 * lookup, if a signal handler of it forked: it has let go before it comes here
 * next, as nothing comes here while it holds anything. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/mman.h>
#include <unistd.h>

#include "xos_shim.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define FORKED 0 /* as the kernel leaves it */
#define TAKING_BACK 1
#define SETTLED 2

static int is_settled(struct xos_cache *c, uint32_t *word)
{
	uint32_t s = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	if (s == SETTLED)
		return 1;
	if (s != FORKED || !__atomic_compare_exchange_n(word, &s, TAKING_BACK, 0, __ATOMIC_ACQUIRE,
	                                                __ATOMIC_RELAXED))
		return 0;
	xos_take_back(c);
	__atomic_store_n(word, SETTLED, __ATOMIC_RELEASE);
	return 1;
}

int xos_is_settled(struct xos_cache *c)
{
	uint32_t *word = __atomic_load_n(&c->fork, __ATOMIC_ACQUIRE);

	return word != NULL && is_settled(c, word);
}

int xos_settle(struct xos_cache *c)
{
	uint32_t *word = __atomic_load_n(&c->fork, __ATOMIC_ACQUIRE), *other = NULL;
	size_t size = (size_t)sysconf(_SC_PAGESIZE);

	if (word != NULL)
		return is_settled(c, word);
	word = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (word == MAP_FAILED)
		return 0;
	if (madvise(word, size, MADV_WIPEONFORK) == 0) {
		*word = SETTLED;
		if (__atomic_compare_exchange_n(&c->fork, &other, word, 0, __ATOMIC_ACQ_REL,
		                                __ATOMIC_ACQUIRE))
			return 1;
	}
	munmap(word, size);
	return other != NULL && is_settled(c, other);
}
