/* SPDX-License-Identifier: GPL-2.0 */
/* The figures of jobs, VOs and users, for programs that add to them. */
#ifndef XOS_USED_H
#define XOS_USED_H

#include <bpf/bpf_helpers.h>
#include "account.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct xos_who);
	__type(value, struct xos_used);
} used SEC(".maps");

static __always_inline struct xos_used *figures_of(__u32 kind, __u64 id)
{
	struct xos_who who = { .id = id, .kind = kind };

	return bpf_map_lookup_elem(&used, &who);
}

#endif
