//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// The guard's own pins: whoever has a label, with whatever rights, takes none
// away. Opening them is lsm_files.c's.

static __always_inline int judge_pin(__u32 hook, struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;

	if (!inode || inode->i_sb->s_magic != BPF_FS_MAGIC)
		return 0;
	return refuse_guard(hook, inode);
}

SEC("lsm/inode_unlink")
int BPF_PROG(xos_inode_unlink, struct inode *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_INODE_UNLINK))
		return -EPERM;
	return judge_pin(XOS_INODE_UNLINK, dentry);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(xos_inode_rmdir, struct inode *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_INODE_RMDIR))
		return -EPERM;
	return judge_pin(XOS_INODE_RMDIR, dentry);
}

SEC("lsm/inode_rename")
int BPF_PROG(xos_inode_rename, struct inode *dir, struct dentry *dentry, struct inode *to, struct dentry *over, int ret)
{
	if (ret)
		return ret;
	if (probed(XOS_INODE_RENAME))
		return -EPERM;
	return judge_pin(XOS_INODE_RENAME, dentry);
}
