//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Programs: another VO's are not executed, and a grid uid that no VO is known
// for executes nothing. A policy may close to a VO's own processes what is not
// root's, and what gives rights by a bit of its mode.

#define S_ISUID 04000
#define S_ISGID 02000

SEC("lsm/bprm_check_security")
int BPF_PROG(xos_bprm_check_security, struct linux_binprm *bprm, int ret)
{
	struct inode *inode = plain(bprm)->file->f_inode;
	struct xos_object o = {};
	__u32 vo, no;

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
	ret = judge(XOS_BPRM_CHECK_SECURITY, XOS_AIM_EXEC, vo, vo == XOS_STRANGER ? vo : label_of_uid(o.uid), &o);
	if (ret)
		return ret;
	no = closed(vo);
	if ((no & (1u << XOS_SURFACE_OWN_PROGRAMS) && o.uid) ||
	    (no & (1u << XOS_SURFACE_SETUID) && inode->i_mode & (S_ISUID | S_ISGID))) {
		tell(XOS_BPRM_CHECK_SECURITY, vo, vo, &o);
		return -EPERM;
	}
	return 0;
}
