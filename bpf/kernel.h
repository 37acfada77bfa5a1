/* SPDX-License-Identifier: GPL-2.0 */
/* What the LSM programs read of the kernel's own structures. The loader finds
 * each member's place in the running kernel (CO-RE), so that only names and
 * types stand here. Kernels from 6.1 have all of them. */
#ifndef XOS_KERNEL_H
#define XOS_KERNEL_H

#include <linux/bpf.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct cred {
	kuid_t uid;
	kuid_t fsuid;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

struct nsproxy {
	struct net *net_ns;
};

struct mm_struct {
	struct file *exe_file;
};

struct task_struct {
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	const struct cred *real_cred;
	const struct cred *cred;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct dentry {
	struct inode *d_inode;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	const struct cred *f_cred;
	unsigned int f_flags;
};

struct linux_binprm {
	struct file *file;
};

struct fown_struct {
	kuid_t uid;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock {
	struct sock_cgroup_data sk_cgrp_data;
	kuid_t sk_uid;
};

struct socket {
	struct sock *sk;
};

struct kern_ipc_perm {
	int id;
	kuid_t uid;
	kuid_t cuid;
};

struct key {
	int serial;
	kuid_t uid;
};

#pragma clang attribute pop

#endif
