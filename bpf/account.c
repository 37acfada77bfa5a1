//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Counts what jobs and users take of a machine: network, programs, files.
//
// A process is a job's by its cgroup, which it cannot leave, else its user's by
// its real uid; a socket is whose process made it. What is nobody's costs a few
// look-ups. Nothing is decided here, and no entry made: each figure is added
// to by one atomic instruction on the processor's own copy, so that none is lost
// whatever interrupts, and processors do not wait for each other.
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "used.h"

char LICENSE[] SEC("license") = "GPL";

/* Where it is not pointed at, the object would not name it. */
const enum xos_kind *kind __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XOS_PLACES);
	__type(key, __u32);
	__type(value, struct xos_place);
} places SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_io_accounting {
	__u64 read_bytes;
	__u64 write_bytes;
	__u64 cancelled_write_bytes;
};

struct task_struct___io {
	struct task_io_accounting ioac;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup___root {
	struct cgroup_root *root;
};

#pragma clang attribute pop

/* Depth of the mount of cgroup version 2: not 0 inside a container. */
const volatile __u32 base;

/* id of a cgroup that was made just now -> its depth. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u32);
} depths SEC(".maps");

/* Whom an event counts for: a job and its VO, or a user; 0 where none. */
struct account {
	struct xos_used *one, *vo;
};

static __always_inline void of_user(struct account *a, __u32 uid)
{
	a->one = uid >= XOS_FIRST_ID && uid <= XOS_LAST_ID ? figures_of(XOS_OF_USER, uid) : 0;
	a->vo = 0;
}

static __always_inline void of_current(struct account *a)
{
	__u64 job = bpf_get_current_ancestor_cgroup_id(base + XOS_ACCOUNT_JOB);

	a->one = job ? figures_of(XOS_OF_JOB, job) : 0;
	if (a->one)
		a->vo = figures_of(XOS_OF_VO, bpf_get_current_ancestor_cgroup_id(base + XOS_ACCOUNT_VO));
	else
		of_user(a, bpf_get_current_uid_gid());
}

#define ADD(account, field, n)                                          \
	do {                                                            \
		if ((account).one)                                      \
			__sync_fetch_and_add(&(account).one->field, n); \
		if ((account).vo)                                       \
			__sync_fetch_and_add(&(account).vo->field, n);  \
	} while (0)

/* What comes often; each is in a place as well as among all other figures. */
enum often { NET_IN, NET_OUT, OPENS };

/* add counts what came for one, and says whether figures of him are kept. */
static __always_inline int add(__u32 kind, __u64 id, enum often what, __u32 n)
{
	__u64 number = kind == XOS_OF_USER ? id | XOS_PLACE_OF_USER : id;
	__u32 at = number % XOS_PLACES;
	struct xos_place *p = bpf_map_lookup_elem(&places, &at);
	struct xos_used *u;

	if (p && p->number == number) {
		__sync_fetch_and_add(what == OPENS ? &p->opens : what == NET_OUT ? &p->net_out : &p->net_in, n);
		return 1;
	}
	u = figures_of(kind, id);
	if (!u)
		return 0;
	__sync_fetch_and_add(what == OPENS ? &u->opens : what == NET_OUT ? &u->net_out : &u->net_in, n);
	return 1;
}

static __always_inline void of_user_packet(struct __sk_buff *skb, enum often what)
{
	__u32 uid = bpf_get_socket_uid(skb);

	if (uid >= XOS_FIRST_ID && uid <= XOS_LAST_ID)
		add(XOS_OF_USER, uid, what, skb->len);
}

/* of_packet counts for a job and its VO. What is still sent from sockets of a job
 * that is not known any more is the VO's; from others, the user's. */
static __always_inline void of_packet(struct __sk_buff *skb, enum often what)
{
	__u64 job = bpf_skb_ancestor_cgroup_id(skb, base + XOS_ACCOUNT_JOB);

	if (job) {
		add(XOS_OF_JOB, job, what, skb->len);
		if (add(XOS_OF_VO, bpf_skb_ancestor_cgroup_id(skb, base + XOS_ACCOUNT_VO), what, skb->len))
			return;
	}
	of_user_packet(skb, what);
}

SEC("cgroup_skb/ingress")
int xos_received(struct __sk_buff *skb)
{
	of_packet(skb, NET_IN);
	return 1;
}

SEC("cgroup_skb/egress")
int xos_sent(struct __sk_buff *skb)
{
	of_packet(skb, NET_OUT);
	return 1;
}

/* Where logins are, no job is. */
SEC("cgroup_skb/ingress")
int xos_received_login(struct __sk_buff *skb)
{
	of_user_packet(skb, NET_IN);
	return 1;
}

SEC("cgroup_skb/egress")
int xos_sent_login(struct __sk_buff *skb)
{
	of_user_packet(skb, NET_OUT);
	return 1;
}

SEC("raw_tp/sched_process_exec")
int xos_executed(struct bpf_raw_tracepoint_args *ctx)
{
	struct account a;

	of_current(&a);
	ADD(a, execs, 1);
	return 0;
}

/* Each thread tells at its end what the kernel counted for it. */
SEC("raw_tp/sched_process_exit")
int xos_ended(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct___io *task = (void *)ctx->args[0];
	__u64 read, written, cancelled;
	struct account a;

	of_current(&a);
	if (!a.one || !bpf_core_field_exists(task->ioac))
		return 0;
	read = BPF_CORE_READ(task, ioac.read_bytes);
	written = BPF_CORE_READ(task, ioac.write_bytes);
	cancelled = BPF_CORE_READ(task, ioac.cancelled_write_bytes);
	/* It may have cancelled what another had written. */
	written = written > cancelled ? written - cancelled : 0;
	if (read)
		ADD(a, read, read);
	if (written)
		ADD(a, written, written);
	return 0;
}

/* Needs a trampoline, which not every kernel gives. */
SEC("fexit/security_file_open")
int BPF_PROG(xos_opened, struct file *file, int ret)
{
	__u64 job;
	__u32 uid;

	if (ret)
		return 0;
	job = bpf_get_current_ancestor_cgroup_id(base + XOS_ACCOUNT_JOB);
	if (job && add(XOS_OF_JOB, job, OPENS, 1)) {
		add(XOS_OF_VO, bpf_get_current_ancestor_cgroup_id(base + XOS_ACCOUNT_VO), OPENS, 1);
		return 0;
	}
	uid = bpf_get_current_uid_gid();
	if (uid >= XOS_FIRST_ID && uid <= XOS_LAST_ID)
		add(XOS_OF_USER, uid, OPENS, 1);
	return 0;
}

/* The programs that decide about sockets and devices ran before these, at the same
 * cgroup. */
static __always_inline int refused(void)
{
	struct account a;

	if (bpf_get_retval() >= 0)
		return 1;
	of_current(&a);
	ADD(a, refused, 1);
	return 1; /* what was refused stays refused */
}

SEC("cgroup/sock_create")
int xos_refused_sock_create(struct bpf_sock *ctx) { return refused(); }

SEC("cgroup/connect4")
int xos_refused_connect4(struct bpf_sock_addr *ctx) { return refused(); }

SEC("cgroup/connect6")
int xos_refused_connect6(struct bpf_sock_addr *ctx) { return refused(); }

SEC("cgroup/sendmsg4")
int xos_refused_sendmsg4(struct bpf_sock_addr *ctx) { return refused(); }

SEC("cgroup/sendmsg6")
int xos_refused_sendmsg6(struct bpf_sock_addr *ctx) { return refused(); }

SEC("cgroup/dev")
int xos_refused_device(struct bpf_cgroup_dev_ctx *ctx) { return refused(); }

/* How deep a directory of the cgroup file system is, no file says. */
SEC("raw_tp/cgroup_mkdir")
int xos_depth(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *made = (void *)ctx->args[0];
	struct cgroup___root *of = (void *)made;
	__u64 id = BPF_CORE_READ(made, kn, id);
	__u32 depth = BPF_CORE_READ(made, level);

	if (BPF_CORE_READ(of, root, hierarchy_id) == 0) /* version 2's */
		bpf_map_update_elem(&depths, &id, &depth, BPF_ANY);
	return 0;
}
