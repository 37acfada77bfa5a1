/* SPDX-License-Identifier: Apache-2.0
 * Whether a thread's ids, as they are at this moment, give it the right to read
 * a mapped snapshot. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <unistd.h>

#include "xos_shim.h"

/* By which of its ids a thread has the right to read a file. */
#define BY_USER 0u
#define BY_GROUPS 1u
#define BY_GROUP 2u
#define WAYS 3

static int has_user(struct xos_ids *who, uid_t owner)
{
	if (!(who->known & 1u << BY_USER))
		who->user = geteuid();
	who->known |= 1u << BY_USER;
	return who->user == owner;
}

static int has_groups(struct xos_ids *who, gid_t group)
{
	int i;

	if (!(who->known & 1u << BY_GROUPS))
		who->n = getgroups(XOS_OWN_GROUPS, who->groups);
	who->known |= 1u << BY_GROUPS;
	for (i = 0; i < who->n; i++)
		if (who->groups[i] == group)
			return 1;
	return 0;
}

static int has_group(struct xos_ids *who, gid_t group)
{
	if (!(who->known & 1u << BY_GROUP))
		who->group = getegid();
	who->known |= 1u << BY_GROUP;
	return who->group == group;
}

/* What the kernel makes of mode 0640, without capabilities. It goes by the
 * filesystem ids, which any process may set to its effective ones. Each id is a
 * system call, so what gave the right last is asked for first. */
int xos_has_right(struct xos_mapped *m, struct xos_ids *who)
{
	uint32_t first = __atomic_load_n(&m->way, __ATOMIC_RELAXED), i;

	for (i = 0; i < WAYS; i++) {
		uint32_t way = (first + i) % WAYS;

		if (way == BY_USER      ? has_user(who, m->owner)
		    : way == BY_GROUPS ? has_groups(who, m->group)
		                       : has_group(who, m->group)) {
			if (way != first)
				__atomic_store_n(&m->way, way, __ATOMIC_RELAXED);
			return 1;
		}
	}
	return 0;
}
