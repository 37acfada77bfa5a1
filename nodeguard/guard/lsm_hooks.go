package guard

import (
	"slices"

	"github.com/xtreemos/xos/bpf"
)

// hook is one of the kernel's checks, with what makes it happen.
type hook struct {
	id   bpf.LsmXosHook
	name string // as the kernel and the object name it
	aim  string
	fire firing
	// judges is what makes the kernel ask, in words.
	judges string
	// policy: it closes what a VO's policy closes, and keeps no VOs apart. A
	// kernel without it has level A all the same.
	policy bool
}

// hooks is all of them, in the order of enum xos_hook. A new one comes last: what
// programs of an earlier version have told is read by their numbers.
var hooks = []hook{
	{bpf.LsmXosHookXOS_TASK_KILL, "task_kill", "signals", simple(killSelf), "kill, tgkill, sigqueue, pidfd_send_signal", false},
	{bpf.LsmXosHookXOS_FILE_SEND_SIGIOTASK, "file_send_sigiotask", "signals", sigio, "SIGIO and its like, by the uid that asked for it", false},
	{bpf.LsmXosHookXOS_PTRACE_ACCESS_CHECK, "ptrace_access_check", "debug", simple(readInit), "ptrace, most of /proc/PID, process_vm_*, pidfd_getfd, kcmp; what hidepid shows", false},
	{bpf.LsmXosHookXOS_PTRACE_TRACEME, "ptrace_traceme", "debug", simple(traceChild), "asking one's parent to trace", false},
	{bpf.LsmXosHookXOS_TASK_SETNICE, "task_setnice", "scheduling", simple(setNice), "setpriority, nice", false},
	{bpf.LsmXosHookXOS_TASK_SETSCHEDULER, "task_setscheduler", "scheduling", setAffinity, "sched_setscheduler, sched_setaffinity", false},
	{bpf.LsmXosHookXOS_TASK_GETSCHEDULER, "task_getscheduler", "scheduling", simple(getAffinity), "sched_getaffinity, sched_getparam", false},
	{bpf.LsmXosHookXOS_TASK_SETIOPRIO, "task_setioprio", "scheduling", simple(setIOPriority), "ioprio_set", false},
	{bpf.LsmXosHookXOS_TASK_GETIOPRIO, "task_getioprio", "scheduling", simple(getIOPriority), "ioprio_get", false},
	{bpf.LsmXosHookXOS_TASK_PRLIMIT, "task_prlimit", "scheduling", simple(limitsOfInit), "prlimit of another process", false},
	{bpf.LsmXosHookXOS_TASK_MOVEMEMORY, "task_movememory", "scheduling", simple(moveInit), "move_pages, migrate_pages", false},
	{bpf.LsmXosHookXOS_TASK_GETSID, "task_getsid", "scheduling", simple(getSID), "getsid", false},
	{bpf.LsmXosHookXOS_TASK_GETPGID, "task_getpgid", "scheduling", simple(getPGID), "getpgid", false},
	{bpf.LsmXosHookXOS_FILE_OPEN, "file_open", "files", simple(openNull), "opening a file, the guard's pins, the machine's cgroups and lists of sockets among them", false},
	{bpf.LsmXosHookXOS_INODE_PERMISSION, "inode_permission", "files", simple(accessRoot), "looking up, linking, watching, and entering a cgroup by clone3", false},
	{bpf.LsmXosHookXOS_INODE_GETATTR, "inode_getattr", "files", simple(statRoot), "stat", false},
	{bpf.LsmXosHookXOS_FILE_RECEIVE, "file_receive", "files", receive, "being handed a descriptor (SCM_RIGHTS, pidfd_getfd)", false},
	{bpf.LsmXosHookXOS_BPRM_CHECK_SECURITY, "bprm_check_security", "exec", execute, "executing a program", false},
	{bpf.LsmXosHookXOS_UNIX_STREAM_CONNECT, "unix_stream_connect", "sockets", connectStream, "connecting to a unix socket (stream, seqpacket)", false},
	{bpf.LsmXosHookXOS_UNIX_MAY_SEND, "unix_may_send", "sockets", connectDatagram, "sending to a unix socket (datagram)", false},
	{bpf.LsmXosHookXOS_IPC_PERMISSION, "ipc_permission", "ipc", attachSegment, "using a System V object", false},
	{bpf.LsmXosHookXOS_SHM_SHMCTL, "shm_shmctl", "ipc", statSegment, "shmctl, listing segments", false},
	{bpf.LsmXosHookXOS_SEM_SEMCTL, "sem_semctl", "ipc", statSemaphore, "semctl, listing semaphores", false},
	{bpf.LsmXosHookXOS_MSG_QUEUE_MSGCTL, "msg_queue_msgctl", "ipc", statQueue, "msgctl, listing queues", false},
	{bpf.LsmXosHookXOS_KEY_PERMISSION, "key_permission", "keys", simple(threadKeyring), "using a key or keyring", false},
	{bpf.LsmXosHookXOS_BPF, "bpf", "kernel", simple(nextProgram), "bpf()", false},
	{bpf.LsmXosHookXOS_PERF_EVENT_OPEN, "perf_event_open", "kernel", simple(perfDummy), "perf_event_open, where a policy closes it", true},
	{bpf.LsmXosHookXOS_USERNS_CREATE, "userns_create", "kernel", simple(newUserNamespace), "making a user namespace, where a policy closes it", true},
	{bpf.LsmXosHookXOS_INODE_UNLINK, "inode_unlink", "guard", unlink, "removing a pin of the guard's", false},
	{bpf.LsmXosHookXOS_INODE_RMDIR, "inode_rmdir", "guard", rmdir, "removing a directory of pins", false},
	{bpf.LsmXosHookXOS_INODE_RENAME, "inode_rename", "guard", rename, "moving a pin", false},
	{bpf.LsmXosHookXOS_SOCKET_CREATE, "socket_create", "sockets", simple(newSocket), "making a socket of a kind that nothing else judges (vsock, SMC, netlink between processes), or that lists all", false},
}

// aims are what the hooks are told by, in the order of their first ones.
func aims() []string {
	var list []string
	for _, h := range hooks {
		if !slices.Contains(list, h.aim) {
			list = append(list, h.aim)
		}
	}
	return list
}
