//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Unix sockets, abstract names among them. A socket is whose cgroup and uid
// made it, which the kernel keeps in it: sockets made before these programs
// came have their label too. IP sockets are vonet.c's. Sockets of any other kind by
// which processes could reach one another are not made.

/* Linux's numbers of address families and of netlink's protocols. */
#define XOS_FAMILY_UNIX 1
#define XOS_FAMILY_INET 2
#define XOS_FAMILY_INET6 10
#define XOS_FAMILY_NETLINK 16
#define XOS_FAMILY_PACKET 17
#define XOS_FAMILY_ALG 38
#define XOS_FAMILY_XDP 44
#define XOS_NETLINK_USERSOCK 2
#define XOS_NETLINK_SOCK_DIAG 4
#define XOS_NETLINK_CONNECTOR 11
#define XOS_FAMILIES 64

static __always_inline int judge_sock(__u32 hook, struct sock *other)
{
	struct xos_object o = {};
	struct cgroup *g;
	__u32 vo;

	if (!other)
		return 0;
	o.uid = other->sk_uid.val;
	g = other->sk_cgrp_data.cgroup;
	if (alike(g, o.uid))
		return 0;
	vo = subject();
	return vo ? judge(hook, XOS_AIM_SOCKETS, vo, label(cgroup_id(g), o.uid), &o) : 0;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(xos_unix_stream_connect, struct sock *sk, struct sock *other, struct sock *newsk, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_UNIX_STREAM_CONNECT))
		return -EPERM;
	return judge_sock(XOS_UNIX_STREAM_CONNECT, other);
}

SEC("lsm/unix_may_send")
int BPF_PROG(xos_unix_may_send, struct socket *sock, struct socket *other, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_UNIX_MAY_SEND))
		return -EPERM;
	return judge_sock(XOS_UNIX_MAY_SEND, other->sk);
}

/* judged says whether a kind of socket is one that other checks judge, or by which
 * no process reaches another. Of netlink, one protocol carries messages between
 * processes, and one tells everybody which processes begin, end and are called
 * what; packets are for who may have them in his network namespace. */
static __always_inline int judged(__u32 family, int protocol)
{
	const __u64 families = 1ull << XOS_FAMILY_UNIX | 1ull << XOS_FAMILY_INET | 1ull << XOS_FAMILY_INET6 |
			       1ull << XOS_FAMILY_NETLINK | 1ull << XOS_FAMILY_PACKET |
			       1ull << XOS_FAMILY_ALG | 1ull << XOS_FAMILY_XDP;

	if (family == XOS_FAMILY_NETLINK)
		return protocol != XOS_NETLINK_USERSOCK && protocol != XOS_NETLINK_CONNECTOR;
	return family < XOS_FAMILIES && families >> family & 1;
}

/* lists says whether a socket would tell of all sockets of the machine's network
 * namespace. In one of its own, a container's, a process sees its own. */
static __always_inline int lists(int family, int protocol)
{
	__u64 id = XOS_OWN_NETWORK;

	if (family != XOS_FAMILY_NETLINK || protocol != XOS_NETLINK_SOCK_DIAG)
		return 0;
	id |= plain(bpf_get_current_task_btf())->nsproxy->net_ns->ns.inum;
	return bpf_map_lookup_elem(&socket_lists, &id) != NULL;
}

/* What the kernel makes for itself below another socket (kern) was judged with that. */
SEC("lsm/socket_create")
int BPF_PROG(xos_socket_create, int family, int type, int protocol, int kern, int ret)
{
	struct xos_object o = {.id = (__u32)family, .dev = (__u32)type, .uid = (__u32)protocol};
	int listing;
	__u32 vo;

	if (ret)
		return ret;
	if (probed(XOS_SOCKET_CREATE))
		return -EPERM;
	listing = lists(family, protocol);
	if (kern || (!listing && judged(family, protocol)))
		return 0;
	vo = subject();
	if (!vo || (listing && !(closed(vo) & 1u << XOS_SURFACE_SOCKET_LISTS)))
		return 0;
	tell(XOS_SOCKET_CREATE, vo, vo, &o);
	return -EPERM;
}
