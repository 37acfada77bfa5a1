//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Files, by their owner. What is the machine's costs one comparison.

#define BPF_FS_MAGIC 0xcafe4a11
#define CGROUP2_SUPER_MAGIC 0x63677270
#define O_ACCMODE 3
#define MAY_WRITE 2

static __always_inline int judge_inode(__u32 hook, __u32 aim, struct inode *inode)
{
	struct xos_object o = {};

	o.uid = BPF_CORE_READ(inode, i_uid.val);
	if (!is_grid(o.uid))
		return 0;
	o.id = BPF_CORE_READ(inode, i_ino);
	o.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	return judge(hook, aim, subject(), label_of_uid(o.uid), &o);
}

/* refuse_guard keeps what has a label from an inode that the guard lives by. */
static __always_inline int refuse_guard(__u32 hook, struct inode *inode)
{
	struct xos_object o = {};
	__u32 vo = subject();

	if (!vo)
		return 0;
	o.id = BPF_CORE_READ(inode, i_ino);
	o.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	o.uid = BPF_CORE_READ(inode, i_uid.val);
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
	unsigned long magic;

	if (ret)
		return ret;
	if (probed(XOS_FILE_OPEN))
		return -EPERM;
	if (is_grid(inode->i_uid.val))
		return judge_inode(XOS_FILE_OPEN, XOS_AIM_FILES, inode);
	magic = inode->i_sb->s_magic;
	if (magic == BPF_FS_MAGIC || (magic == CGROUP2_SUPER_MAGIC && (file->f_flags & O_ACCMODE)))
		return refuse_guard(XOS_FILE_OPEN, inode);
	return 0;
}

SEC("lsm/inode_permission")
int BPF_PROG(xos_inode_permission, struct inode *inode, int mask, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_INODE_PERMISSION))
		return -EPERM;
	if (is_grid(inode->i_uid.val))
		return judge_inode(XOS_INODE_PERMISSION, XOS_AIM_FILES, inode);
	if ((mask & MAY_WRITE) && inode->i_sb->s_magic == CGROUP2_SUPER_MAGIC)
		return refuse_guard(XOS_INODE_PERMISSION, inode);
	return 0;
}

SEC("lsm/inode_getattr")
int BPF_PROG(xos_inode_getattr, const struct path *path, int ret)
{
	struct inode *inode = path->dentry->d_inode;

	if (ret)
		return ret;
	if (probed(XOS_INODE_GETATTR))
		return -EPERM;
	if (!is_grid(inode->i_uid.val))
		return 0;
	return judge_inode(XOS_INODE_GETATTR, XOS_AIM_FILES, inode);
}

/* A descriptor that is handed over: neither the file may be another VO's, nor
 * who opened it. That covers sockets, pipes and memory. */
SEC("lsm/file_receive")
int BPF_PROG(xos_file_receive, struct file *file, int ret)
{
	struct xos_object o = {};
	struct inode *inode = file->f_inode;
	__u32 opener;

	if (ret)
		return ret;
	if (probed(XOS_FILE_RECEIVE))
		return -EPERM;
	ret = judge_inode(XOS_FILE_RECEIVE, XOS_AIM_FILES, inode);
	if (ret)
		return ret;
	opener = file->f_cred->uid.val;
	if (!is_grid(opener))
		return 0;
	o.uid = opener;
	o.id = inode->i_ino;
	o.dev = inode->i_sb->s_dev;
	return judge(XOS_FILE_RECEIVE, XOS_AIM_FILES, subject(), label_of_uid(opener), &o);
}
