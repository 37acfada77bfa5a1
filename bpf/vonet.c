//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Keeps the VOs' network endpoints on one machine apart.
//
// Every IP socket that a grid uid makes is its VO's. A grid process may then
// connect or send to a local socket only if that is its own VO's or that of one
// that shares the network with it, or nobody's (a service of the machine). Other
// machines are not this program's business. A grid uid without a VO is refused
// sockets.
//
// A TCP socket is known by its owner's uid, which the kernel keeps in it; what has
// no such field that programs see, and what its maker does not own, bears a label.
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "kernel.h"
#include "vonet.h"
#include "isolation.h"
#include "tell.h"

char LICENSE[] SEC("license") = "GPL";

/* Depth of a job's cgroup in the kernel's own view; 0 where it is not known. */
const volatile __u32 depth_of_job;

/* Whether programs may read the kernel's memory: not so under lockdown. */
const volatile __u32 may_read = 1;

/* Whether programs may see a socket's owner: not so without BTF. */
const volatile __u32 may_own = 1;

/* uid -> VO number; filled before a grid uid gets its first process. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} vo_of_uid SEC(".maps");

/* Label of a socket: its maker's. A labelled one's that accept() makes have it too. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} vo_of_socket SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XOS_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* To prove that programs fire: the cookie of the socket whose connect is denied,
 * and the uid, nobody's, whose device is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} probe SEC(".maps");

/* Linux's numbers of address families: its headers for programs have none. */
#define XOS_INET 2
#define XOS_INET6 10

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline int is_grid(__u32 uid)
{
	return uid >= XOS_FIRST_ID && uid <= XOS_LAST_ID;
}

/* Only protocols whose sockets can be labelled: the kernel makes the TCP
 * sockets below Multipath TCP by itself, past this hook, and the programs that
 * see connections do not see SCTP's or DCCP's. */
static __always_inline int is_known(__u32 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP ||
	       protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* What is told of a refusal, beside who asked. */
struct refusal {
	__u32 hook, why, vo, object_vo;
	struct xos_object object;
	struct xos_endpoint endpoint;
};

/* tell counts and records a refusal that is decided already. Nothing of it is
 * run for what is allowed. */
static __noinline int tell(struct refusal *r)
{
	struct xos_telling *t;
	struct xos_denial *d;
	__u64 now;

	if (!r)
		return 0;
	now = bpf_ktime_get_boot_ns();
	count(r->why);
	t = telling_of(r->vo);
	if (t)
		__sync_fetch_and_add(r->hook == XOS_DEVICE ? &t->devices : &t->network, 1);
	d = entry(t, now);
	if (!d) {
		lost(t);
		return 0;
	}
	d->when = now;
	d->object = r->object;
	d->endpoint = r->endpoint;
	d->object_vo = r->object_vo;
	d->vo = r->vo;
	d->hook = r->hook;
	d->why = r->why;
	d->zero = 0;
	d->cgroup = depth_of_job ? bpf_get_current_ancestor_cgroup_id(depth_of_job) : 0;
	of_current(d, may_read);
	bpf_ringbuf_submit(d, 0);
	return 0;
}

/* refuse_socket tells of a socket that is not made. */
static __always_inline int refuse_socket(struct bpf_sock *sk, __u32 vo, __u32 why)
{
	struct refusal r = {.hook = XOS_SOCK_CREATE, .why = why, .vo = vo};

	r.endpoint.family = sk->family;
	r.endpoint.protocol = sk->protocol;
	r.endpoint.type = sk->type;
	tell(&r);
	return 0;
}

/* owns says whether the current process is the owner of the socket that it makes. */
static __always_inline int owns(__u32 uid)
{
	if (!may_own)
		return 0;
	return bpf_get_current_task_btf()->cred->fsuid.val == uid;
}

SEC("cgroup/sock_create")
int xos_sock_create(struct bpf_sock *sk)
{
	__u32 uid = bpf_get_current_uid_gid();
	__u32 *vo;

	if (!is_grid(uid))
		return 1;
	vo = bpf_map_lookup_elem(&vo_of_uid, &uid);
	if (!vo)
		return refuse_socket(sk, XOS_STRANGER, XOS_COUNT_UNLABELLED);
	if (!is_known(sk->protocol))
		return refuse_socket(sk, *vo, XOS_COUNT_PROTOCOL);
	/* A label takes memory, and once more for each connection that is accepted. */
	if (sk->protocol == IPPROTO_TCP && owns(uid))
		return 1;
	if (!bpf_sk_storage_get(&vo_of_socket, sk, vo, BPF_SK_STORAGE_GET_F_CREATE))
		return refuse_socket(sk, *vo, XOS_COUNT_LABEL);
	return 1;
}

/* probed fires the real program for one socket of the loader's own. */
static __always_inline int probed(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	__u64 *cookie = bpf_map_lookup_elem(&probe, &zero);

	return cookie && *cookie && *cookie == bpf_get_socket_cookie(ctx);
}

/* refuse tells of a connection or packet that does not go to the tuple's socket. */
static __always_inline int refuse(struct bpf_sock_addr *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u32 hook, __u32 vo, __u32 object_vo, __u32 why)
{
	struct refusal r = {.hook = hook, .why = why, .vo = vo, .object_vo = object_vo};

	if (size == sizeof(tuple->ipv4)) {
		r.endpoint.family = XOS_INET;
		r.endpoint.address[0] = tuple->ipv4.daddr;
		r.endpoint.port = tuple->ipv4.dport;
	} else {
		r.endpoint.family = XOS_INET6;
		__builtin_memcpy(r.endpoint.address, tuple->ipv6.daddr, sizeof(r.endpoint.address));
		r.endpoint.port = tuple->ipv6.dport;
	}
	r.endpoint.protocol = ctx->protocol;
	r.endpoint.type = ctx->type;
	tell(&r);
	return 0;
}

/* label_of gives a socket's label. uid and vo are the current process's. */
static __always_inline __u32 label_of(struct bpf_sock *sk, __u32 uid, __u32 vo)
{
	__u32 *label = bpf_sk_storage_get(&vo_of_socket, sk, 0, 0);
	struct tcp_sock *tcp;
	__u32 owner;

	if (label)
		return *label;
	if (!may_own)
		return XOS_SYSTEM;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return XOS_SYSTEM;
	owner = ((struct sock *)tcp)->sk_uid.val;
	if (owner == uid)
		return vo;
	if (!is_grid(owner))
		return XOS_SYSTEM;
	label = bpf_map_lookup_elem(&vo_of_uid, &owner);
	return label ? *label : XOS_STRANGER;
}

/* decide says whether the current process may reach the tuple's socket. */
static __always_inline int decide(struct bpf_sock_addr *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u32 hook)
{
	__u32 uid = bpf_get_current_uid_gid();
	__u32 *vo;
	struct bpf_sock *sk;
	__u32 verdict = XOS_COUNT_ALLOWED, object_vo = XOS_SYSTEM;

	if (probed(ctx))
		return 0;
	if (!is_grid(uid))
		return 1;
	vo = bpf_map_lookup_elem(&vo_of_uid, &uid);
	if (!vo)
		return refuse(ctx, tuple, size, hook, XOS_STRANGER, XOS_SYSTEM, XOS_COUNT_UNLABELLED);
	if (ctx->protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		object_vo = label_of(sk, uid, *vo);
		bpf_sk_release(sk);
		if (object_vo != XOS_SYSTEM && object_vo != *vo)
			verdict = shares(*vo, object_vo, XOS_AIM_NETWORK) ? XOS_COUNT_SHARED : XOS_COUNT_OTHER_VO;
	}
	if (verdict == XOS_COUNT_OTHER_VO)
		return refuse(ctx, tuple, size, hook, *vo, object_vo, verdict);
	count(verdict);
	return 1;
}

static __always_inline int decide4(struct bpf_sock_addr *ctx, __u32 address, __u32 hook)
{
	struct bpf_sock_tuple t = {};

	/* To INADDR_ANY means to this machine. */
	t.ipv4.daddr = address ? address : bpf_htonl(INADDR_LOOPBACK);
	t.ipv4.dport = ctx->user_port;
	return decide(ctx, &t, sizeof(t.ipv4), hook);
}

static __always_inline int decide6(struct bpf_sock_addr *ctx, __u32 hook)
{
	struct bpf_sock_tuple t = {};
	__u32 a0 = ctx->user_ip6[0], a1 = ctx->user_ip6[1], a2 = ctx->user_ip6[2], a3 = ctx->user_ip6[3];

	/* An IPv4 address in IPv6 form reaches IPv4 sockets too. */
	if (!a0 && !a1 && a2 == bpf_htonl(0xffff) && !decide4(ctx, a3, hook))
		return 0;
	if (!a0 && !a1 && !a2 && !a3)
		a3 = bpf_htonl(1);
	t.ipv6.daddr[0] = a0;
	t.ipv6.daddr[1] = a1;
	t.ipv6.daddr[2] = a2;
	t.ipv6.daddr[3] = a3;
	t.ipv6.dport = ctx->user_port;
	return decide(ctx, &t, sizeof(t.ipv6), hook);
}

SEC("cgroup/connect4")
int xos_connect4(struct bpf_sock_addr *ctx)
{
	return decide4(ctx, ctx->user_ip4, XOS_CONNECT4);
}

SEC("cgroup/connect6")
int xos_connect6(struct bpf_sock_addr *ctx)
{
	return decide6(ctx, XOS_CONNECT6);
}

SEC("cgroup/sendmsg4")
int xos_sendmsg4(struct bpf_sock_addr *ctx)
{
	return decide4(ctx, ctx->user_ip4, XOS_SENDMSG4);
}

SEC("cgroup/sendmsg6")
int xos_sendmsg6(struct bpf_sock_addr *ctx)
{
	return decide6(ctx, XOS_SENDMSG6);
}

/* xos_ask answers by the table in force, for who wants to know what it is. */
SEC("syscall")
int xos_ask(struct xos_question *q)
{
	q->shared = q->vo == q->other ? 1 : shares(q->vo, q->other, q->aim);
	q->closed = closed(q->vo);
	return 0;
}

/* Where else they are pointed at only, the object would name them and no more. */
const enum xos_aim *aim __attribute__((unused));
const enum xos_surface *surface __attribute__((unused));
const enum xos_rule_kind *kind __attribute__((unused));
const enum xos_count *counted __attribute__((unused));
const enum xos_program *program __attribute__((unused));
const struct xos_denial *told __attribute__((unused));
const struct xos_question *question __attribute__((unused));

#include "vonet_devices.c"
