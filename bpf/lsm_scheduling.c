//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// How other processes are scheduled and bounded, and which group they are in:
// to set it, and to ask for it where there is a hook.

#define SCHEDULING(hook, HOOK, ...)                                            \
	SEC("lsm/" #hook)                                                      \
	int BPF_PROG(xos_##hook, struct task_struct *p, ##__VA_ARGS__)         \
	{                                                                      \
		if (ret)                                                       \
			return ret;                                            \
		if (probed(HOOK))                                              \
			return -EPERM;                                         \
		return judge_task(HOOK, XOS_AIM_SCHEDULING, p);                \
	}

SCHEDULING(task_setnice, XOS_TASK_SETNICE, int nice, int ret)
SCHEDULING(task_setscheduler, XOS_TASK_SETSCHEDULER, int ret)
SCHEDULING(task_getscheduler, XOS_TASK_GETSCHEDULER, int ret)
SCHEDULING(task_setioprio, XOS_TASK_SETIOPRIO, int ioprio, int ret)
SCHEDULING(task_getioprio, XOS_TASK_GETIOPRIO, int ret)
SCHEDULING(task_movememory, XOS_TASK_MOVEMEMORY, int ret)
SCHEDULING(task_getsid, XOS_TASK_GETSID, int ret)
SCHEDULING(task_getpgid, XOS_TASK_GETPGID, int ret)

/* This one is told credentials, so that only the uid labels the other. */
SEC("lsm/task_prlimit")
int BPF_PROG(xos_task_prlimit, const struct cred *cred, const struct cred *other, unsigned int flags, int ret)
{
	struct xos_object o = {};

	if (ret)
		return ret;
	if (probed(XOS_TASK_PRLIMIT))
		return -EPERM;
	o.uid = other->uid.val;
	return judge(XOS_TASK_PRLIMIT, XOS_AIM_SCHEDULING, subject(), label_of_uid(o.uid), &o);
}
