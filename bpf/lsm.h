/* SPDX-License-Identifier: GPL-2.0 */
/* Map layouts that the LSM programs share with their loader. */
#ifndef XOS_LSM_H
#define XOS_LSM_H

#include <linux/types.h>
#include "vonet.h"
#include "isolation.h"

/* The depth of a cgroup that belongs to one VO: /xos/vo-NAME, and
 * /user.slice/user-UID.slice. */
#define XOS_VO_LEVEL 2

/* In socket_lists: what follows is the number of a network namespace, no inode. */
#define XOS_OWN_NETWORK (1ull << 63)

/* Labels that are no VO's number. */
#define XOS_SYSTEM 0u            /* nothing of the grid */
#define XOS_STRANGER 0xffffffffu /* a grid uid that no VO is known for */

/* Each hook: what a denial is told by, what a probe names. 0 is none. */
enum xos_hook {
	XOS_HOOK_NONE,
	XOS_TASK_KILL,
	XOS_FILE_SEND_SIGIOTASK,
	XOS_PTRACE_ACCESS_CHECK,
	XOS_PTRACE_TRACEME,
	XOS_TASK_SETNICE,
	XOS_TASK_SETSCHEDULER,
	XOS_TASK_GETSCHEDULER,
	XOS_TASK_SETIOPRIO,
	XOS_TASK_GETIOPRIO,
	XOS_TASK_PRLIMIT,
	XOS_TASK_MOVEMEMORY,
	XOS_TASK_GETSID,
	XOS_TASK_GETPGID,
	XOS_FILE_OPEN,
	XOS_INODE_PERMISSION,
	XOS_INODE_GETATTR,
	XOS_FILE_RECEIVE,
	XOS_BPRM_CHECK_SECURITY,
	XOS_UNIX_STREAM_CONNECT,
	XOS_UNIX_MAY_SEND,
	XOS_IPC_PERMISSION,
	XOS_SHM_SHMCTL,
	XOS_SEM_SEMCTL,
	XOS_MSG_QUEUE_MSGCTL,
	XOS_KEY_PERMISSION,
	XOS_BPF,
	XOS_PERF_EVENT_OPEN,
	XOS_USERNS_CREATE,
	XOS_INODE_UNLINK,
	XOS_INODE_RMDIR,
	XOS_INODE_RENAME,
	XOS_SOCKET_CREATE,
	XOS_HOOKS,
};

/* Whose a cgroup is. What the system itself does in that of somebody's logins
 * (sshd, PAM modules, systemd's helpers, all with real uid 0) stays the
 * system's; what is in a job's cgroup is the VO's, whatever its uid. */
struct xos_cgroup {
	__u32 vo;
	__u32 logins;
};

/* Which hook shall refuse one thread, to prove that it fires. */
struct xos_probe {
	__u32 hook;
	__u32 tid;
	__u32 fired; /* how often it did */
};

/* What a denial tells of its object. */
struct xos_object {
	__u64 id;  /* pid, inode, IPC id, serial of a key, or family of a socket to be made */
	__u32 dev; /* the inode's, or the socket's type */
	__u32 uid; /* the owner's, or the socket's protocol */
};

/* What one VO's processes were refused, by each hook. */
struct xos_tally {
	__u64 denied[XOS_HOOKS];
};

#endif
