//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Signals. Those that the kernel itself sends (a terminal's ^C, SIGCHLD,
// timers of one's own) pass no hook and need none.

SEC("lsm/task_kill")
int BPF_PROG(xos_task_kill, struct task_struct *p, void *info, int sig, const void *cred, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_TASK_KILL))
		return -EPERM;
	return judge_task(XOS_TASK_KILL, XOS_AIM_SIGNALS, p);
}

/* SIGIO and its like go to whom a descriptor's owner named, at a time when the
 * current process is somebody else: the owner's uid is what counts. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(xos_file_send_sigiotask, struct task_struct *p, struct fown_struct *fown, int sig, int ret)
{
	struct xos_object o = {};

	if (ret)
		return ret;
	if (probed(XOS_FILE_SEND_SIGIOTASK))
		return -EPERM;
	o.id = p->tgid;
	o.uid = plain(p)->real_cred->uid.val;
	return judge(XOS_FILE_SEND_SIGIOTASK, XOS_AIM_SIGNALS, label_of_uid(fown->uid.val), label(cgroup_id(plain(p)->cgroups->dfl_cgrp), o.uid), &o);
}
