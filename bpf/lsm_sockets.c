//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Unix sockets, abstract names among them. A socket is whose cgroup and uid
// made it, which the kernel keeps in it: sockets made before these programs
// came have their label too. IP sockets are vonet.c's.

static __always_inline int judge_sock(__u32 hook, struct sock *other)
{
	struct xos_object o = {};
	__u32 vo = subject();

	if (!vo || !other)
		return 0;
	o.uid = other->sk_uid.val;
	return judge(hook, XOS_AIM_SOCKETS, vo, label_beside(vo, other->sk_cgrp_data.cgroup, o.uid), &o);
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
