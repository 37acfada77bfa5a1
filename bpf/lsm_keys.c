//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Keys and keyrings, by their owner.

SEC("lsm/key_permission")
int xos_key_permission(unsigned long long *ctx)
{
	struct xos_object o = {};
	struct key *key;
	__u64 ref = 0;
	int ret = ctx[3];

	if (ret)
		return ret;
	if (probed(XOS_KEY_PERMISSION))
		return -EPERM;
	/* The lowest bit of a reference says that the caller possesses the key.
	 * The verifier lets nobody mask a pointer, so it is read as a number. */
	if (bpf_probe_read_kernel(&ref, sizeof(ref), ctx))
		return 0;
	key = (struct key *)(ref & ~1ull);
	o.uid = BPF_CORE_READ(key, uid.val);
	/* One's own are one's own, before one has a label too: PAM modules make
	 * a session's keyring with the user's uid before her login is known. */
	if (!is_grid(o.uid) || o.uid == (__u32)bpf_get_current_uid_gid())
		return 0;
	o.id = (__u32)BPF_CORE_READ(key, serial);
	return judge(XOS_KEY_PERMISSION, XOS_AIM_KEYS, subject(), label_of_uid(o.uid), &o);
}
