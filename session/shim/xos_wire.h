/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol between the modules that live in other programs' processes
 * (libnss_xos.so.2, pam_xos.so, xos-principals) and the session service of
 * xos-node. This file is the protocol: C uses it as it stands, and Go's codec
 * (session/wire) is tested against its constants.
 *
 * Transport: a SOCK_STREAM unix socket. One connection carries one request and
 * one reply, then both sides close. The client checks that the server runs as
 * root (SO_PEERCRED), the server learns in the same way who asks: nothing in a
 * request says so.
 *
 * Every integer is little endian. A message is a header and then `length`
 * bytes of fields:
 *
 *   offset size
 *        0    4  magic    XOS_MAGIC
 *        4    2  version  XOS_VERSION; another version is refused
 *        6    2  op       one of XOS_OP_*; a reply repeats the request's
 *        8    4  length   of the fields, at most XOS_MAX_BODY
 *       12    4  status   0 in a request, one of XOS_ST_* in a reply
 *
 * Fields follow each other without padding:
 *
 *   u32      4 bytes
 *   string   u32 length, then the bytes; never a NUL among them, no end mark
 *   list<T>  u32 count, then the items
 *
 * Nothing may follow the last field. A reply whose status is not XOS_ST_OK has
 * one field: string message, for the user, at most XOS_MAX_MESSAGE bytes.
 *
 *   op          request                            reply
 *   GETPWNAM    string name                        passwd
 *   GETPWUID    u32 uid                            passwd
 *   GETGRNAM    string name                        group
 *   GETGRGID    u32 gid                            group
 *   INITGROUPS  string name                        list<u32> gids
 *   PRINCIPALS  string name, key type, key         string principal
 *   PAM_AUTH    pam, string password               (no field)
 *   PAM_ACCOUNT pam                                string message
 *   PAM_OPEN    pam, string auth info              string session,
 *                                                  list<string> NAME=value,
 *                                                  string message,
 *                                                  u32 descriptors (0 or 1)
 *   PAM_CLOSE   string session                     (no field)
 *   SUBIDS      string name                        u32 first, u32 count
 *   SUBID_OWNER u32 id                             u32 uid
 *
 *   passwd  string name, u32 uid, u32 gid, string gecos, home, shell
 *   group   string name, u32 gid, list<string> members
 *   pam     string name, service, remote host, terminal
 *
 * `key` is the user's key or certificate as sshd gives it for %k: base64
 * without the type. `password` has at most XOS_MAX_PASSWORD bytes; both sides
 * forget it with the request. `auth info` is SSH_AUTH_INFO_0, newlines and all. Where
 * `descriptors` is 1, a descriptor of a mount namespace came with the reply's
 * first byte (SCM_RIGHTS), which the login process has to enter; and then the
 * IPC namespace whose file is mounted in it on XOS_IPC, if that is there.
 */
#ifndef XOS_WIRE_H
#define XOS_WIRE_H

#define XOS_SOCKET "/run/xos/shim.sock"
#define XOS_IPC "/run/xos/ipc"

#define XOS_MAGIC 0x57534f58u /* "XOSW" */
#define XOS_VERSION 1
#define XOS_HEADER 16
#define XOS_MAX_BODY 65536u
#define XOS_MAX_MESSAGE 512u
#define XOS_MAX_PASSWORD 256u

#define XOS_OP_GETPWNAM 1
#define XOS_OP_GETPWUID 2
#define XOS_OP_GETGRNAM 3
#define XOS_OP_GETGRGID 4
#define XOS_OP_INITGROUPS 5
#define XOS_OP_PRINCIPALS 6
#define XOS_OP_PAM_AUTH 7
#define XOS_OP_PAM_ACCOUNT 8
#define XOS_OP_PAM_OPEN 9
#define XOS_OP_PAM_CLOSE 10
#define XOS_OP_SUBIDS 11
#define XOS_OP_SUBID_OWNER 12

#define XOS_ST_OK 0
#define XOS_ST_NOTFOUND 1     /* no such name or id, or not for this caller */
#define XOS_ST_DENIED 2       /* policy refuses */
#define XOS_ST_INVALID 3      /* malformed request */
#define XOS_ST_UNAVAIL 4      /* cannot be answered now */
#define XOS_ST_NOTSUPPORTED 5 /* not offered here */
#define XOS_ST_EXPIRED 6      /* the credential has run out */
#define XOS_ST_INTERNAL 7     /* the service has failed */

/* How long a client waits, in milliseconds: for the connection, and for all of
 * a request, connection included. Looking up a name must never be felt; who logs
 * in while others eat the machine would rather wait than be refused; a password
 * is checked by the core, and an opened session may have to mount a home first. */
#define XOS_CONNECT_MS 200
#define XOS_LOOKUP_MS 1000
#define XOS_ACCOUNT_MS 10000
#define XOS_AUTH_MS 27000
#define XOS_OPEN_MS 20000
#define XOS_CLOSE_MS 5000
/* For how long a client that has shown why no session was opened waits for its
 * end: the service gives it less to show that. */
#define XOS_END_MS 5000

/* Names. A part of a name (user, VO, group) is a lower case letter and then
 * letters, digits, '_', '-' and '.', not ending in '-' or '.'. A login name is
 * user@vo, a group name vo, vo:group, or user@vo for a private group. Of user
 * and VO names, those in XOS_RESERVED are never the grid's. */
#define XOS_MAX_NAME 32
#define XOS_RESERVED                                                           \
	{                                                                          \
		"root", "nobody", "daemon", "bin", "sys", "xos", "sudo", "wheel",      \
			"admin", "adm", "shadow", "disk", "kmem", "docker", "lxd",         \
			"incus", "incus-admin", "libvirt", "kvm", "netdev"                 \
	}

/* Ids of grid users and groups; no answer may hold another one. */
#define XOS_FIRST_ID 1879048192u
#define XOS_LAST_ID 2147483646u

/* Most groups of a user, and members of a group, in one answer. */
#define XOS_MAX_GROUPS 1024u
#define XOS_MAX_MEMBERS 8192u

/* Snapshots: what the machine knows of one VO's accounts, in a file that is
 * complete when it appears (by rename) and can be read by root and the VO's
 * members only (mode 0640, group: the VO's gid). There is one for every VO
 * that the machine serves, an empty one too: that a name is no VO's is seen
 * from there being no file.
 *
 * A large VO's snapshot is two files, so that one change need not write all of
 * it: the head, which is the file above and says what has changed since, and a
 * base, which it names by its generation. The head's word counts: what it has
 * under a name or id, a record XOS_SNAP_GONE too, hides what the base has. The
 * pair changes with the rename of the head alone. A base is there before the
 * head that names it and removed after the one that names another: who opened
 * a head and does not find its base looks for the head again. Its owner, group
 * and mode are the head's.
 *
 * Nothing of a file ever changes but the head's generation, which its writer
 * makes 0 before another takes its place, and before it is removed: so readers
 * may keep both mapped (xos_map.c), and look at that word for whether they are
 * still the ones. No file ever becomes shorter, which would be a SIGBUS in
 * every process that has it mapped: only root may write it, and of root's only
 * xos-node does.
 *
 *   offset size
 *        0    8  magic       XOS_SNAP_MAGIC
 *        8    4  version     XOS_SNAP_VERSION; a head with a base
 *                            XOS_SNAP_BASED, which readers that know only the
 *                            former take for broken, not for all there is
 *       12    4  size        of the whole file, at most XOS_SNAP_MAX
 *       16    8  generation  grows with every head of this VO, 0: given up;
 *                            that of a base is in its name, in 16 digits
 *       24    4  users       how many records of users
 *       28    4  groups      how many records of groups
 *       32    4  slots       of each index: a power of two, more than
 *                            there are records
 *       36    4  names       offset of the index by name
 *       40    4  ids         offset of the index by id
 *       44    4  vo          length of the VO's name
 *       48   32  the VO's name, padded with zeros
 *       80    8  base        its generation, not 0; only if XOS_SNAP_BASED
 *
 * An index is `slots` times {u32 key, u32 offset of a record}, offset 0 where
 * there is none. The key is the id, or FNV-1a (32 bit) of the name. With
 * h = key * XOS_SNAP_MIX mod 2^32, a record stands in the first free slot from
 * h xor (h >> 16), modulo `slots`; a lookup ends at the first empty one, or
 * after XOS_SNAP_RUN slots.
 *
 *   record  u32 kind XOS_SNAP_USER, u32 length: passwd, list<u32> gids
 *           u32 kind XOS_SNAP_GROUP, u32 length: group
 *           u32 kind XOS_SNAP_GONE, u32 length: string name, u32 id
 *
 * with the fields as above. The private group of a user has no record: it has
 * the user's name and id, and no members.
 */
#define XOS_SNAP_DIR "/run/xos/nss"
#define XOS_SNAP_PREFIX "vo-"
#define XOS_SNAP_SUFFIX ".snap"
#define XOS_SNAP_BASE_SUFFIX ".base" /* after the name and '.' generation */
#define XOS_SNAP_MAGIC "XOSSNAP\n"
#define XOS_SNAP_VERSION 1
#define XOS_SNAP_BASED 2
#define XOS_SNAP_HEADER 80
#define XOS_SNAP_BASED_HEADER 88
#define XOS_SNAP_GENERATION 16 /* its offset */
#define XOS_SNAP_MAX 0x40000000u
#define XOS_SNAP_MIX 0x9e3779b1u
#define XOS_SNAP_RUN 4096u
#define XOS_SNAP_USER 1
#define XOS_SNAP_GROUP 2
#define XOS_SNAP_GONE 3

#endif
