package denial

import (
	"strconv"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/infra/audit"
)

// Names says what numbers mean.
type Names interface {
	// VO is "" for a number that is not known.
	VO(num uint32) xos.VOName
	Account(uid uint32) (xos.Account, bool)
	// Hook gives a hook's or program's name and aim.
	Hook(id uint32) (name, aim string)
	// Executable is the path of a file that a process runs, or "" if that has
	// gone or runs another by now.
	Executable(pid uint32, file File) string
	// Job is that of a cgroup, or "".
	Job(cgroup uint64) xos.JobID
}

// reasons are those of the programs of the network and of devices.
var reasons = map[bpf.VonetXosCount]string{
	bpf.VonetXosCountXOS_COUNT_OTHER_VO:   "the port is another VO's",
	bpf.VonetXosCountXOS_COUNT_UNLABELLED: "no VO is known for this uid",
	bpf.VonetXosCountXOS_COUNT_PROTOCOL:   "a socket of this protocol cannot be labelled with its VO",
	bpf.VonetXosCountXOS_COUNT_LABEL:      "there was no memory to label the socket with its VO",
	bpf.VonetXosCountXOS_COUNT_DEVICE:     "the VO was not given this device",
}

// record puts a denial into words. count is how often it was repeated.
func (w *Window) record(d Denial, count uint64) audit.Record {
	hook, aim := w.names.Hook(d.Hook)
	r := audit.Record{Actor: "uid " + decimal(d.UID), Action: "isolation." + aim, VO: w.names.VO(d.VO),
		Subject: w.object(d, aim), Reason: "the kernel's check " + hook + " keeps VOs apart",
		Detail: map[string]string{"rule": hook, "pid": decimal(d.PID), "command": d.Command}}
	if isProgram(d.Hook) {
		r.Reason = reasons[bpf.VonetXosCount(d.Why)]
	}
	if a, ok := w.names.Account(d.UID); ok {
		r.Actor, r.User = a.String(), a.User
	}
	if exe := w.names.Executable(d.PID, d.Executable); exe != "" {
		r.Detail["executable"] = exe
	} else if d.Executable.Inode != 0 {
		r.Detail["executable"] = number(d.Executable.Device, d.Executable.Inode)
	}
	if job := w.names.Job(d.Cgroup); job != "" {
		r.Detail["job"] = string(job)
	}
	if count > 0 {
		r.Detail["repeated"] = strconv.FormatUint(count, 10)
	}
	return r
}

// object says what was asked for.
func (w *Window) object(d Denial, aim string) string {
	if d.Hook == uint32(bpf.LsmXosHookXOS_SOCKET_CREATE) {
		return d.Endpoint.String()
	}
	var b strings.Builder
	switch aim {
	case "signals", "debug", "scheduling":
		b.WriteString("process " + strconv.FormatUint(d.Object, 10))
	case "files", "exec", "guard":
		b.WriteString(number(d.Device, d.Object))
	case "sockets":
		b.WriteString("unix socket")
	case "ipc":
		b.WriteString("IPC object " + strconv.FormatUint(d.Object, 10))
	case "keys":
		b.WriteString("key " + strconv.FormatUint(d.Object, 10))
	case "network":
		b.WriteString(d.Endpoint.String())
		if vo := w.names.VO(d.ObjectVO); vo != "" {
			b.WriteString(" of VO " + string(vo))
		}
		return b.String()
	case "devices":
		return device(d)
	default:
		return aim
	}
	if a, ok := w.names.Account(d.ObjectUID); ok {
		b.WriteString(" of " + a.String())
	} else {
		b.WriteString(" of uid " + decimal(d.ObjectUID))
		if vo := w.names.VO(d.ObjectVO); vo != "" {
			b.WriteString(" in VO " + string(vo))
		}
	}
	return b.String()
}

// protocols are IANA's numbers, and Linux's for Multipath TCP.
var protocols = map[uint16]string{1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite", 262: "mptcp"}

// families are Linux's numbers. What has no protocols worth telling has its name only.
var families = map[uint16]string{inet: "IPv4", inet6: "IPv6", netlink: "netlink", 30: "TIPC", 40: "vsock", 41: "KCM", 43: "SMC"}

// String is such as "tcp 127.0.0.1:80", "socket of IPv4 and mptcp", or "socket of vsock".
func (e Endpoint) String() string {
	protocol := protocols[e.Protocol]
	if protocol == "" {
		protocol = "protocol " + decimal(uint32(e.Protocol))
	}
	if e.At.IsValid() {
		return protocol + " " + e.At.String()
	}
	family := families[e.Family]
	if family == "" {
		family = "family " + decimal(uint32(e.Family))
	}
	switch e.Family {
	case inet, inet6:
	case netlink:
		return "socket of netlink, protocol " + decimal(uint32(e.Protocol))
	default:
		return "socket of " + family
	}
	if e.Type == typeRaw {
		return "raw socket of " + family + " and " + protocol
	}
	return "socket of " + family + " and " + protocol
}

// typeRaw is SOCK_RAW.
const typeRaw = 3

// device says which was asked for, and for what (BPF_DEVCG_* of linux/bpf.h).
func device(d Denial) string {
	kind := "device"
	switch d.Object & 0xffff {
	case 1:
		kind = "block device"
	case 2:
		kind = "character device"
	}
	var access []string
	for i, word := range []string{"make", "read", "write"} {
		if d.Object>>16&(1<<i) != 0 {
			access = append(access, word)
		}
	}
	return kind + " " + numbers(d.Device) + ", to " + strings.Join(access, " and ")
}

// number names a file by its numbers.
func number(device uint32, inode uint64) string {
	return "file " + numbers(device) + " inode " + strconv.FormatUint(inode, 10)
}

func numbers(device uint32) string { return decimal(device>>20) + ":" + decimal(device&(1<<20-1)) }

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
