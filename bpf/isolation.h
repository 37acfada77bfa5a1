/* SPDX-License-Identifier: GPL-2.0 */
/* What VOs share with each other and what they may not do: policies of
 * isolation, compiled to numbers (nodeguard/isolation). All programs decide by
 * one table, which is replaced as a whole: who decides has the old one or the
 * new, never a part of either. Without a table nothing is shared. */
#ifndef XOS_ISOLATION_H
#define XOS_ISOLATION_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What VOs may share, a bit each; nodeguard/isolation has the same order. */
enum xos_aim {
	XOS_AIM_SIGNALS,
	XOS_AIM_DEBUG,
	XOS_AIM_SCHEDULING,
	XOS_AIM_FILES,
	XOS_AIM_EXEC,
	XOS_AIM_SOCKETS,
	XOS_AIM_IPC,
	XOS_AIM_KEYS,
	XOS_AIM_NETWORK,
	XOS_AIMS,
};

/* What a VO's own processes may be forbidden, a bit each. */
enum xos_surface {
	XOS_SURFACE_BPF, /* to all, always */
	XOS_SURFACE_PERF,
	XOS_SURFACE_USERNS,
	XOS_SURFACE_SETUID,
	XOS_SURFACE_OWN_PROGRAMS,
	XOS_SURFACE_SOCKET_LISTS, /* unless the site permits it */
	XOS_SURFACES,
};

#define XOS_CLOSED_ALWAYS (1u << XOS_SURFACE_BPF)
#define XOS_CLOSED_DEFAULT (XOS_CLOSED_ALWAYS | 1u << XOS_SURFACE_SOCKET_LISTS)

/* What an entry of the table is about. */
enum xos_rule_kind {
	XOS_RULE_VO,    /* a is a VO, or 0: any that has no entry */
	XOS_RULE_PAIR,  /* a and b are two, of which one names the other; a is less */
	XOS_RULE_CHAR,  /* a is a VO, b and c a character device's numbers */
	XOS_RULE_BLOCK, /* the same of a block device */
	XOS_RULE_KINDS,
};

struct xos_rule_key {
	__u32 kind, a, b, c;
};

struct xos_rule {
	__u32 shared; /* VO: aims shared with any who does so too; PAIR: shared aims */
	__u32 closed; /* VO: surfaces */
	__u64 until;  /* CLOCK_BOOTTIME, ns: then nothing is shared any more */
};

/* The table only points at them; so the object has what they are. */
const struct xos_rule_key *rule_key __attribute__((unused));
const struct xos_rule *rule __attribute__((unused));

struct xos_rules {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* each table has as many as it needs */
	__type(key, struct xos_rule_key);
	__type(value, struct xos_rule);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct xos_rules);
} isolation SEC(".maps");

static __always_inline void *rules(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&isolation, &zero);
}

/* shares says whether two VOs share an aim. It is asked only of two that
 * differ: within a VO it costs nothing. */
static __noinline int shares(__u32 vo, __u32 other, __u32 aim)
{
	struct xos_rule_key key = {.kind = XOS_RULE_PAIR};
	void *all = rules();
	struct xos_rule *one, *two;
	__u64 now;

	if (!all || aim >= XOS_AIMS)
		return 0;
	now = bpf_ktime_get_boot_ns();
	key.a = vo < other ? vo : other;
	key.b = vo < other ? other : vo;
	one = bpf_map_lookup_elem(all, &key);
	if (one)
		return ((one->shared >> aim) & 1) && now < one->until;
	key.kind = XOS_RULE_VO;
	key.b = 0;
	key.a = vo;
	one = bpf_map_lookup_elem(all, &key);
	if (!one || !((one->shared >> aim) & 1) || now >= one->until)
		return 0;
	key.a = other;
	two = bpf_map_lookup_elem(all, &key);
	return two && ((two->shared >> aim) & 1) && now < two->until;
}

/* closed gives the surfaces that a VO may not use. */
static __noinline __u32 closed(__u32 vo)
{
	struct xos_rule_key key = {.kind = XOS_RULE_VO, .a = vo};
	void *all = rules();
	struct xos_rule *r;

	if (!all)
		return XOS_CLOSED_DEFAULT;
	r = bpf_map_lookup_elem(all, &key);
	if (!r) {
		key.a = 0;
		r = bpf_map_lookup_elem(all, &key);
	}
	return r ? r->closed | XOS_CLOSED_ALWAYS : XOS_CLOSED_DEFAULT;
}

#endif
