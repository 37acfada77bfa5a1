//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Parts of the kernel that a VO has no need of, or that its policy closes. The
// arguments differ between kernels, and so the place of an earlier refusal; but
// the kernel runs no further program after one that refused.

SEC("lsm/bpf")
int xos_bpf(void *ctx)
{
	if (probed(XOS_BPF))
		return -EPERM;
	return judge_surface(XOS_BPF, XOS_SURFACE_BPF);
}

SEC("lsm/perf_event_open")
int xos_perf_event_open(void *ctx)
{
	if (probed(XOS_PERF_EVENT_OPEN))
		return -EPERM;
	return judge_surface(XOS_PERF_EVENT_OPEN, XOS_SURFACE_PERF);
}

SEC("lsm/userns_create")
int BPF_PROG(xos_userns_create, const struct cred *cred, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_USERNS_CREATE))
		return -EPERM;
	return judge_surface(XOS_USERNS_CREATE, XOS_SURFACE_USERNS);
}
