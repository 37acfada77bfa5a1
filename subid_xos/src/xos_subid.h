/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SUBID_XOS_H
#define SUBID_XOS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../session/shim/xos_shim.h"

/* What libsubid (of the package shadow) and a module for it say to each other:
 * the module answers four functions, of which each gives one of these and,
 * where it allocates, memory for shadow_subid_free. */
enum answer {
	OK,
	NO_SUCH_USER,
	NOT_REACHED, /* who knows is not there */
	FAILED,
};
enum kind { SUBUID = 1, SUBGID = 2 };
struct range {
	unsigned long start, count;
};

/* The highest id; the next one means "none" to the kernel. */
#define HIGHEST UINT32_C(0xfffffffe)

/* Whether a user has all ids of a range. */
enum answer shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count,
                                   enum kind kind, bool *result);
/* The ranges of a user; *list is NULL where there are none. */
enum answer shadow_subid_list_owner_ranges(const char *owner, enum kind kind, struct range **list,
                                           int *count);
/* The uids of whose ranges an id is one; *uids is NULL where there are none. */
enum answer shadow_subid_find_subid_owners(unsigned long id, enum kind kind, uid_t **uids,
                                           int *count);
void shadow_subid_free(void *p);

/* Whether two ranges have an id in common. */
int overlap(struct range a, struct range b);

/* --- the machine's own (local.c) ------------------------------------------ */

/* A line of /etc/subuid or /etc/subgid. The owner has no end mark. */
struct line {
	struct xos_str owner;
	struct range range;
};
/* One of these files, in memory. One that is not there is empty. */
struct lines {
	char *text;
	size_t left;
	const char *at;
};
enum answer lines_open(struct lines *l, enum kind kind);
/* The next line that is well-formed; 0: there is none. */
int lines_next(struct lines *l, struct line *line);
void lines_close(struct lines *l);
/* Whether a name's or uid's owner is the same user. */
int is_same_user(struct xos_str owner, const char *name);
/* The uid of a line's owner; 0: it has none. */
int uid_of(struct xos_str owner, uid_t *uid);

#endif
