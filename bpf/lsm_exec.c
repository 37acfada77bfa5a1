//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Programs: another VO's are not executed, and a grid uid that no VO is known
// for executes nothing.

SEC("lsm/bprm_check_security")
int BPF_PROG(xos_bprm_check_security, struct linux_binprm *bprm, int ret)
{
	struct inode *inode = bprm->file->f_inode;
	struct xos_object o = {};
	__u32 vo;

	if (ret)
		return ret;
	if (probed(XOS_BPRM_CHECK_SECURITY))
		return -EPERM;
	vo = subject();
	if (!vo)
		return 0;
	o.uid = inode->i_uid.val;
	o.id = inode->i_ino;
	o.dev = inode->i_sb->s_dev;
	return judge(XOS_BPRM_CHECK_SECURITY, XOS_AIM_EXEC, vo, vo == XOS_STRANGER ? vo : label_of_uid(o.uid), &o);
}
