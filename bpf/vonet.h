/* SPDX-License-Identifier: GPL-2.0 */
/* Map layouts that the programs share with their loader. */
#ifndef XOS_VONET_H
#define XOS_VONET_H

#define XOS_FIRST_ID 1879048192u /* session.FirstID */
#define XOS_LAST_ID 2147483646u  /* session.LastID */

/* What the programs counted; an index into the counts map. */
enum xos_count {
	XOS_COUNT_ALLOWED,    /* decisions about a grid process: allowed */
	XOS_COUNT_OTHER_VO,   /* denied: the port belongs to another VO */
	XOS_COUNT_UNLABELLED, /* denied: a grid uid that no VO is known for */
	XOS_COUNT_PROTOCOL,   /* denied: a protocol whose sockets bear no label */
	XOS_COUNT_SHARED,     /* allowed: another VO's port, which both VOs share */
	XOS_COUNT_DEVICE,     /* denied: a device that the VO has not */
	XOS_COUNT_LABEL,      /* denied: no memory for a socket's label */
	XOS_COUNTS,
};

/* A question to the table in force: see xos_ask. */
struct xos_question {
	__u32 vo, other, aim;
	__u32 shared; /* the answer */
	__u32 closed; /* of vo */
};

#endif
