//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Debugging, and all that the kernel grants by the same question: most of
// /proc/PID, process_vm_readv, pidfd_getfd, kcmp, perf of another process, and
// what hidepid=ptraceable shows.

SEC("lsm/ptrace_access_check")
int BPF_PROG(xos_ptrace_access_check, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_PTRACE_ACCESS_CHECK))
		return -EPERM;
	return judge_task(XOS_PTRACE_ACCESS_CHECK, XOS_AIM_DEBUG, child);
}

/* The probe is told by the parent: a thread that had itself traced could not
 * undo it. */
SEC("lsm/ptrace_traceme")
int BPF_PROG(xos_ptrace_traceme, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	if (lsm_probe.hook == XOS_PTRACE_TRACEME && lsm_probe.tid == (__u32)parent->tgid) {
		__sync_fetch_and_add(&lsm_probe.fired, 1);
		return -EPERM;
	}
	return judge_task(XOS_PTRACE_TRACEME, XOS_AIM_DEBUG, parent);
}
