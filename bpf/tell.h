/* SPDX-License-Identifier: GPL-2.0 */
/* How all programs tell of what they refused: an entry each of one ring buffer.
 * What is refused is decided before, and nobody waits: an entry for which there
 * is no room, or that is one too many of its VO's in this second, is counted as
 * lost. So a VO that is refused without end takes no other's place. */
#ifndef XOS_TELL_H
#define XOS_TELL_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "lsm.h"

/* The programs of vonet.c, by numbers that no hook has. */
enum xos_program {
	XOS_SOCK_CREATE = 64,
	XOS_CONNECT4,
	XOS_CONNECT6,
	XOS_SENDMSG4,
	XOS_SENDMSG6,
	XOS_DEVICE,
	XOS_PROGRAMS,
};

/* Entries that a VO has in a second of 2^30 ns. The ring has room for more
 * than eight thousand. */
#define XOS_ENTRIES 500
#define XOS_SECOND 30

/* What a denial tells of an object in the network, in network byte order. */
struct xos_endpoint {
	__u32 address[4]; /* an IPv4 address is the first */
	__u16 port;
	__u16 family;
	__u16 protocol;
	__u16 type; /* of a socket to be made */
};

/* An entry of the ring buffer. */
struct xos_denial {
	__u64 when; /* CLOCK_BOOTTIME, ns */
	struct xos_object object;
	struct xos_endpoint endpoint;
	__u64 cgroup;     /* id of the one below the VO's: a job's, or a login's */
	__u64 exe_inode;  /* of what the process executes */
	__u32 exe_dev;
	__u32 object_vo;
	__u32 vo;
	__u32 uid;
	__u32 pid;
	__u32 hook; /* enum xos_hook, enum xos_program */
	__u32 why;  /* of a program of vonet.c: enum xos_count */
	__u32 zero;
	char comm[16];
};

/* What was told of one VO. */
struct xos_telling {
	__u64 second; /* in which this many were to be told */
	__u64 told;
	__u64 lost;    /* all that were not */
	__u64 network; /* all that vonet.c refused */
	__u64 devices;
};

/* VO number -> what was told of it. The loader makes the entries: also
 * XOS_STRANGER's, and XOS_SYSTEM's for those that have none. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536 + 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct xos_telling);
} tellings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} refusals SEC(".maps");

static __always_inline struct xos_telling *telling_of(__u32 vo)
{
	struct xos_telling *t = bpf_map_lookup_elem(&tellings, &vo);
	__u32 none = XOS_SYSTEM;

	return t ? t : bpf_map_lookup_elem(&tellings, &none);
}

/* entry gives one to be filled and submitted, or 0: then the caller counts it as
 * lost. It does not look at what it gives, since Linux 6.1 takes a second look
 * for one that may fail. Two processors that begin a second at once may tell some
 * more. */
static __always_inline struct xos_denial *entry(struct xos_telling *t, __u64 now)
{
	if (!t)
		return 0; /* the loader makes one before it attaches a program */
	if (t->second != now >> XOS_SECOND) {
		t->second = now >> XOS_SECOND;
		t->told = 0;
	}
	if (t->told >= XOS_ENTRIES)
		return 0;
	__sync_fetch_and_add(&t->told, 1);
	return bpf_ringbuf_reserve(&refusals, sizeof(struct xos_denial), 0);
}

static __always_inline void lost(struct xos_telling *t)
{
	if (t)
		__sync_fetch_and_add(&t->lost, 1);
}

/* of_current fills in who acts; exe says whether the kernel's memory may be read. */
static __always_inline void of_current(struct xos_denial *d, int exe)
{
	d->uid = bpf_get_current_uid_gid();
	d->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(d->comm, sizeof(d->comm));
	d->exe_inode = 0;
	d->exe_dev = 0;
	if (exe) {
		struct task_struct *self = (void *)bpf_get_current_task();
		struct inode *file = BPF_CORE_READ(self, mm, exe_file, f_inode);

		d->exe_inode = BPF_CORE_READ(file, i_ino);
		d->exe_dev = BPF_CORE_READ(file, i_sb, s_dev);
	}
}

#endif
