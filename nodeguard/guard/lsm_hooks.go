package guard

import (
	"github.com/xtreemos/xos/bpf"
)

// hook is one of the kernel's checks, with what makes it happen.
type hook struct {
	id   bpf.LsmXosHook
	name string // as the kernel and the object name it
	aim  string
	fire firing
	// policy: it closes what a VO's policy closes, and keeps no VOs apart. A
	// kernel without it has level A all the same.
	policy bool
}

// hooks is all of them, in the order of enum xos_hook.
var hooks = []hook{
	{bpf.LsmXosHookXOS_TASK_KILL, "task_kill", "signals", simple(killSelf), false},
	{bpf.LsmXosHookXOS_FILE_SEND_SIGIOTASK, "file_send_sigiotask", "signals", sigio, false},
	{bpf.LsmXosHookXOS_PTRACE_ACCESS_CHECK, "ptrace_access_check", "debug", simple(readInit), false},
	{bpf.LsmXosHookXOS_PTRACE_TRACEME, "ptrace_traceme", "debug", simple(traceChild), false},
	{bpf.LsmXosHookXOS_TASK_SETNICE, "task_setnice", "scheduling", simple(setNice), false},
	{bpf.LsmXosHookXOS_TASK_SETSCHEDULER, "task_setscheduler", "scheduling", setAffinity, false},
	{bpf.LsmXosHookXOS_TASK_GETSCHEDULER, "task_getscheduler", "scheduling", simple(getAffinity), false},
	{bpf.LsmXosHookXOS_TASK_SETIOPRIO, "task_setioprio", "scheduling", simple(setIOPriority), false},
	{bpf.LsmXosHookXOS_TASK_GETIOPRIO, "task_getioprio", "scheduling", simple(getIOPriority), false},
	{bpf.LsmXosHookXOS_TASK_PRLIMIT, "task_prlimit", "scheduling", simple(limitsOfInit), false},
	{bpf.LsmXosHookXOS_TASK_MOVEMEMORY, "task_movememory", "scheduling", simple(moveInit), false},
	{bpf.LsmXosHookXOS_TASK_GETSID, "task_getsid", "scheduling", simple(getSID), false},
	{bpf.LsmXosHookXOS_TASK_GETPGID, "task_getpgid", "scheduling", simple(getPGID), false},
	{bpf.LsmXosHookXOS_FILE_OPEN, "file_open", "files", simple(openNull), false},
	{bpf.LsmXosHookXOS_INODE_PERMISSION, "inode_permission", "files", simple(accessRoot), false},
	{bpf.LsmXosHookXOS_INODE_GETATTR, "inode_getattr", "files", simple(statRoot), false},
	{bpf.LsmXosHookXOS_FILE_RECEIVE, "file_receive", "files", receive, false},
	{bpf.LsmXosHookXOS_BPRM_CHECK_SECURITY, "bprm_check_security", "exec", execute, false},
	{bpf.LsmXosHookXOS_UNIX_STREAM_CONNECT, "unix_stream_connect", "sockets", connectStream, false},
	{bpf.LsmXosHookXOS_UNIX_MAY_SEND, "unix_may_send", "sockets", connectDatagram, false},
	{bpf.LsmXosHookXOS_IPC_PERMISSION, "ipc_permission", "ipc", attachSegment, false},
	{bpf.LsmXosHookXOS_SHM_SHMCTL, "shm_shmctl", "ipc", statSegment, false},
	{bpf.LsmXosHookXOS_SEM_SEMCTL, "sem_semctl", "ipc", statSemaphore, false},
	{bpf.LsmXosHookXOS_MSG_QUEUE_MSGCTL, "msg_queue_msgctl", "ipc", statQueue, false},
	{bpf.LsmXosHookXOS_KEY_PERMISSION, "key_permission", "keys", simple(threadKeyring), false},
	{bpf.LsmXosHookXOS_BPF, "bpf", "kernel", simple(nextProgram), false},
	{bpf.LsmXosHookXOS_PERF_EVENT_OPEN, "perf_event_open", "kernel", simple(perfDummy), true},
	{bpf.LsmXosHookXOS_USERNS_CREATE, "userns_create", "kernel", simple(newUserNamespace), true},
	{bpf.LsmXosHookXOS_INODE_UNLINK, "inode_unlink", "guard", unlink, false},
	{bpf.LsmXosHookXOS_INODE_RMDIR, "inode_rmdir", "guard", rmdir, false},
	{bpf.LsmXosHookXOS_INODE_RENAME, "inode_rename", "guard", rename, false},
}

// aims are what the hooks are told by, in their order.
func aims() []string {
	var list []string
	for _, h := range hooks {
		if len(list) == 0 || list[len(list)-1] != h.aim {
			list = append(list, h.aim)
		}
	}
	return list
}
