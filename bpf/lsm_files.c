//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Files, by their owner. What is the machine's costs one comparison, and what is
// one's own two: who has the owner's uid is the owner.

#define BPF_FS_MAGIC 0xcafe4a11
#define CGROUP2_SUPER_MAGIC 0x63677270
#define PROC_SUPER_MAGIC 0x9fa0
#define O_ACCMODE 3
#define MAY_WRITE 2
#define MAY_OPEN 0x20

/* judge_inode decides about an inode by a grid uid that goes with it: its owner's,
 * or that of who opened it. */
static __always_inline int judge_inode(__u32 hook, struct inode *inode, __u32 uid)
{
	struct xos_object o = {};
	__u32 vo, object_vo;

	if (bpf_get_current_task_btf()->cred->uid.val == uid)
		return 0;
	vo = subject();
	object_vo = label_of_uid(uid);
	if (!refused(XOS_AIM_FILES, vo, object_vo))
		return 0;
	o.uid = uid;
	o.id = inode->i_ino;
	o.dev = plain(inode)->i_sb->s_dev;
	tell(hook, vo, object_vo, &o);
	return -EPERM;
}

/* refuse_guard keeps what has a label from an inode that the guard lives by. */
static __always_inline int refuse_guard(__u32 hook, struct inode *inode)
{
	struct xos_object o = {};
	__u32 vo = subject();

	if (!vo)
		return 0;
	o.id = inode->i_ino;
	o.dev = plain(inode)->i_sb->s_dev;
	o.uid = inode->i_uid.val;
	tell(hook, vo, XOS_SYSTEM, &o);
	return -EPERM;
}

/* refuse_list keeps what has a label from the lists of everybody's sockets. */
static __always_inline int refuse_list(__u32 hook, struct inode *inode)
{
	__u64 id = inode->i_ino;
	struct xos_object o = {.id = id};
	__u32 vo;

	if (!bpf_map_lookup_elem(&socket_lists, &id))
		return 0;
	vo = subject();
	if (!vo || !(closed(vo) & 1u << XOS_SURFACE_SOCKET_LISTS))
		return 0;
	o.dev = plain(inode)->i_sb->s_dev;
	tell(hook, vo, XOS_SYSTEM, &o);
	return -EPERM;
}

/* The guard's pins are nobody's to open; nor are the machine's own cgroups to
 * write, by which a process could leave its label behind. clone3() into a cgroup
 * opens nothing, and asks inode_permission only. */
SEC("lsm/file_open")
int BPF_PROG(xos_file_open, struct file *file, int ret)
{
	struct inode *inode = file->f_inode;
	__u32 uid = inode->i_uid.val;
	unsigned long magic;

	if (ret)
		return ret;
	if (probed(XOS_FILE_OPEN))
		return -EPERM;
	if (is_grid(uid))
		return judge_inode(XOS_FILE_OPEN, inode, uid);
	magic = inode->i_sb->s_magic;
	if (magic == BPF_FS_MAGIC || (magic == CGROUP2_SUPER_MAGIC && (file->f_flags & O_ACCMODE)))
		return refuse_guard(XOS_FILE_OPEN, inode);
	return magic == PROC_SUPER_MAGIC ? refuse_list(XOS_FILE_OPEN, inode) : 0;
}

/* To open a file is judged once, by file_open, which the kernel asks right after
 * this and before anything is done with the file. */
SEC("lsm/inode_permission")
int BPF_PROG(xos_inode_permission, struct inode *inode, int mask, int ret)
{
	__u32 uid = inode->i_uid.val;

	if (ret)
		return ret;
	if (probed(XOS_INODE_PERMISSION))
		return -EPERM;
	if (is_grid(uid))
		return mask & MAY_OPEN ? 0 : judge_inode(XOS_INODE_PERMISSION, inode, uid);
	if ((mask & MAY_WRITE) && inode->i_sb->s_magic == CGROUP2_SUPER_MAGIC)
		return refuse_guard(XOS_INODE_PERMISSION, inode);
	return 0;
}

SEC("lsm/inode_getattr")
int BPF_PROG(xos_inode_getattr, const struct path *path, int ret)
{
	struct inode *inode = path->dentry->d_inode;
	__u32 uid;

	if (ret)
		return ret;
	if (probed(XOS_INODE_GETATTR))
		return -EPERM;
	if (!inode)
		return 0;
	uid = inode->i_uid.val;
	return is_grid(uid) ? judge_inode(XOS_INODE_GETATTR, inode, uid) : 0;
}

/* A descriptor that is handed over: neither the file may be another VO's, nor
 * who opened it. That covers sockets, pipes and memory. */
SEC("lsm/file_receive")
int BPF_PROG(xos_file_receive, struct file *file, int ret)
{
	struct inode *inode = plain(file)->f_inode;
	__u32 owner = inode->i_uid.val, opener = plain(file)->f_cred->uid.val;

	if (ret)
		return ret;
	if (probed(XOS_FILE_RECEIVE))
		return -EPERM;
	if (is_grid(owner))
		ret = judge_inode(XOS_FILE_RECEIVE, inode, owner);
	if (ret || opener == owner || !is_grid(opener))
		return ret;
	return judge_inode(XOS_FILE_RECEIVE, inode, opener);
}
