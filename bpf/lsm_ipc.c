//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// System V IPC by id, by the object's owner and its maker. POSIX queues are
// files. The pointers are read with checks only: the control calls that ask
// about no object pass none.

static __always_inline int judge_ipc(__u32 hook, struct kern_ipc_perm *ipc)
{
	struct xos_object o = {};
	__u32 vo = subject(), object_vo;

	if (!vo)
		return 0;
	o.uid = BPF_CORE_READ(ipc, uid.val);
	o.id = BPF_CORE_READ(ipc, id);
	object_vo = label_of_uid(o.uid);
	if (!object_vo)
		object_vo = label_of_uid(BPF_CORE_READ(ipc, cuid.val));
	return judge(hook, XOS_AIM_IPC, vo, object_vo, &o);
}

SEC("lsm/ipc_permission")
int BPF_PROG(xos_ipc_permission, struct kern_ipc_perm *ipc, int flag, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_IPC_PERMISSION))
		return -EPERM;
	return judge_ipc(XOS_IPC_PERMISSION, ipc);
}

#define CONTROL(hook, HOOK)                                                    \
	SEC("lsm/" #hook)                                                      \
	int BPF_PROG(xos_##hook, struct kern_ipc_perm *ipc, int cmd, int ret)  \
	{                                                                      \
		if (ret)                                                       \
			return ret;                                            \
		if (probed(HOOK))                                              \
			return -EPERM;                                         \
		return judge_ipc(HOOK, ipc);                                   \
	}

CONTROL(shm_shmctl, XOS_SHM_SHMCTL)
CONTROL(sem_semctl, XOS_SEM_SEMCTL)
CONTROL(msg_queue_msgctl, XOS_MSG_QUEUE_MSGCTL)
