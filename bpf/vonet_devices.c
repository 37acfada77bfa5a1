//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Devices: a grid process uses those that keep nothing between who opens them,
// and those that its VO was given.

#define TYPE_BLOCK 1
#define TYPE_CHAR 2
#define MKNOD 1

/* Linux allocates these numbers: Documentation/admin-guide/devices.txt. */
static __always_inline int is_everybodys(__u32 major, __u32 minor)
{
	switch (major) {
	case 1: /* null, zero, full, random, urandom */
		return minor == 3 || minor == 5 || (minor >= 7 && minor <= 9);
	case 5: /* tty, console, ptmx */
		return minor <= 2;
	case 10: /* fuse; net/tun, which acts in the opener's network namespace */
		return minor == 229 || minor == 200;
	case 4: /* terminals of the machine, whose owner decides */
		return 1;
	case 136 ... 143: /* pseudo terminals, the same */
		return 1;
	}
	return 0;
}

/* refuse_device tells of a device that the VO has not. */
static __always_inline int refuse_device(struct bpf_cgroup_dev_ctx *ctx, __u32 vo)
{
	struct refusal r = {.hook = XOS_DEVICE, .why = XOS_COUNT_DEVICE, .vo = vo};

	r.object.dev = ctx->major << 20 | (ctx->minor & 0xfffff);
	r.object.id = ctx->access_type; /* the kind of device, and above that the access */
	tell(&r);
	return 0;
}

SEC("cgroup/dev")
int xos_device(struct bpf_cgroup_dev_ctx *ctx)
{
	__u32 uid = bpf_get_current_uid_gid();
	__u32 one = 1;
	__u64 *nobody;
	struct xos_rule_key key = {.kind = XOS_RULE_CHAR, .b = ctx->major, .c = ctx->minor};
	__u32 type = ctx->access_type & 0xffff, access = ctx->access_type >> 16;
	void *all;
	__u32 *vo;

	if (!is_grid(uid))
		return 1;
	nobody = bpf_map_lookup_elem(&probe, &one);
	if (nobody && *nobody == uid)
		return 0;
	if (type == TYPE_CHAR && is_everybodys(key.b, key.c))
		return 1;
	/* A whiteout of overlayfs is no device. */
	if (type == TYPE_CHAR && access == MKNOD && !key.b && !key.c)
		return 1;
	if (type == TYPE_BLOCK)
		key.kind = XOS_RULE_BLOCK;
	vo = bpf_map_lookup_elem(&vo_of_uid, &uid);
	all = rules();
	if (vo && all) {
		key.a = *vo;
		if (bpf_map_lookup_elem(all, &key))
			return 1;
	}
	return refuse_device(ctx, vo ? *vo : XOS_STRANGER);
}
