/* SPDX-License-Identifier: GPL-2.0 */
/* Map layouts that the accounting programs share with their loader. */
#ifndef XOS_ACCOUNT_H
#define XOS_ACCOUNT_H

#include <linux/types.h>
#include "vonet.h"

/* Depth of the cgroups below that of the VOs, /xos: /xos/vo-NAME/job-ID. */
#define XOS_ACCOUNT_VO 2
#define XOS_ACCOUNT_JOB 3

enum xos_kind {
	XOS_OF_JOB = 1, /* id is that of its cgroup */
	XOS_OF_VO,      /* its jobs together; id is that of their cgroup */
	XOS_OF_USER,    /* what she runs outside of jobs; id is her uid */
};

/* Whom figures are kept of. The loader makes the entries. */
struct xos_who {
	__u64 id;
	__u32 kind;
	__u32 zero;
};

/* One processor's part of the figures, each of which only grows. */
struct xos_used {
	__u64 net_in;  /* bytes of IP packets, headers included */
	__u64 net_out;
	__u64 execs;   /* programs that began */
	__u64 opens;   /* files opened, programs and their libraries among them */
	__u64 read;    /* bytes that threads fetched from disks, told when they end */
	__u64 written; /* bytes that they gave to be written, the same */
	__u64 refused; /* what vonet.c's programs refused, and the LSM programs */
};

/* Packets and opened files come often, so that they have places of their own, found
 * without a search: the one of a number is what it leaves when divided. Who finds
 * another's number there is counted above. The loader gives and takes places. */
#define XOS_PLACES 4096

/* In a place, the number of a user is her uid with this; of others, that of their cgroup. */
#define XOS_PLACE_OF_USER (1ull << 63)

struct xos_place {
	__u64 net_in;
	__u64 net_out;
	__u64 opens;
	__u64 number; /* 0 for nobody's; the last, since a place is written in order */
};

#endif
