/* SPDX-License-Identifier: GPL-2.0 */
/* Whose a process or an object is, and what follows: the maps and the one
 * decision that all LSM programs share.
 *
 * A process is its VO's by the cgroup that systemd or the guard put it into,
 * which it cannot leave, whatever it executes or unshares; else by its real
 * uid. What was found is kept in the thread. What the kernel gives a hook is
 * read directly, which costs a load; a read with checks is a call. */
#ifndef XOS_LABEL_H
#define XOS_LABEL_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "lsm.h"
#include "tell.h"
#include "used.h"

#define EPERM 1

/* uid -> VO number; the one that the network programs have. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} vo_of_uid SEC(".maps");

/* id of a cgroup at XOS_VO_LEVEL -> whose it is. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct xos_cgroup);
} vo_of_cgroup SEC(".maps");

/* What a thread of a VO was found to be. It is found anew when its cgroup or its
 * uid is another, or labels have changed since: a cgroup's number is never given
 * twice. */
struct xos_found {
	__u64 cgroup;
	__u32 uid;
	__u32 vo;      /* its label */
	__u32 changes; /* label_changes when it was found */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct xos_found);
} found SEC(".maps");

/* Counts changes of labels. The loader adds to it before and after each, so that it is
 * odd while one is under way, or where that was never ended. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} label_changes SEC(".maps");

/* A variable, which every program compares with what it is: a look-up would be
 * most of what some of them do. */
volatile struct xos_probe lsm_probe SEC(".data.probe");

/* The files of /proc that list the sockets of the machine's network namespace, by
 * inode, and that namespace itself. The loader finds them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u8);
} socket_lists SEC(".maps");

/* Denials of each hook. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, XOS_HOOKS);
	__type(key, __u32);
	__type(value, __u64);
} lsm_counts SEC(".maps");

/* VO number -> what its processes were refused. The loader makes the entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct xos_tally);
} lsm_tallies SEC(".maps");

/* plain gives what the kernel gave, to read pointers of it that are seldom needed. For
 * each that is read of what it gave itself Linux from 6.2 on looks through its names of
 * all types, up to four times, to see how far that may be trusted, which was nine tenths
 * of the time that loading took; but those that are read plainly cost some instructions
 * more. Nothing that is read here needs trust. Linux 6.1 neither looks nor has the
 * function: the loader leaves it out there. */
extern void *bpf_rdonly_cast(const void *given, __u32 type) __ksym;
#define plain(p) ((typeof(p))bpf_rdonly_cast(p, bpf_core_type_id_kernel(typeof(*(p)))))

static __always_inline int is_grid(__u32 uid)
{
	return uid >= XOS_FIRST_ID && uid <= XOS_LAST_ID;
}

static __always_inline __u32 label_of_uid(__u32 uid)
{
	__u32 *vo;

	if (!is_grid(uid))
		return XOS_SYSTEM;
	vo = bpf_map_lookup_elem(&vo_of_uid, &uid);
	return vo ? *vo : XOS_STRANGER;
}

/* label is that of what has this uid and is in the cgroup with this id. */
static __always_inline __u32 label(__u64 id, __u32 uid)
{
	struct xos_cgroup *g = bpf_map_lookup_elem(&vo_of_cgroup, &id);

	if (g && !(g->logins && uid == 0))
		return g->vo;
	return label_of_uid(uid);
}

/* cgroup_id gives the id of a cgroup's ancestor that may belong to a VO. The
 * verifier knows no way to it, so that it is read with checks. */
static __always_inline __u64 cgroup_id(struct cgroup *g)
{
	struct cgroup *top;

	if (g->level < XOS_VO_LEVEL ||
	    bpf_core_read(&top, sizeof(top), &g->ancestors[XOS_VO_LEVEL]))
		return 0;
	return BPF_CORE_READ(top, kn, id);
}

static __always_inline __u32 *changes(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&label_changes, &zero);
}

static __always_inline int of_a_vo(__u32 label)
{
	return label != XOS_SYSTEM && label != XOS_STRANGER;
}

/* find looks up the label of the process that acts, and keeps a VO's. What is kept
 * is of one cgroup, though the thread may be moved meanwhile, and is looked up after
 * the changes are counted, by an instruction that nothing is done before. */
static __noinline __u32 find(void)
{
	__u32 uid = bpf_get_current_uid_gid(), *changed, at;
	__u32 vo = label(bpf_get_current_ancestor_cgroup_id(XOS_VO_LEVEL), uid);
	struct task_struct *self;
	struct xos_found *f;
	struct cgroup *g;

	if (!of_a_vo(vo))
		return vo;
	changed = changes();
	if (!changed)
		return vo;
	at = __sync_fetch_and_add(changed, 0);
	if (at & 1)
		return vo; /* one is under way */
	self = bpf_get_current_task_btf();
	g = plain(self)->cgroups->dfl_cgrp;
	vo = label(cgroup_id(g), uid);
	if (!of_a_vo(vo))
		return vo;
	f = bpf_task_storage_get(&found, self, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!f)
		return vo;
	f->cgroup = g->kn->id;
	f->uid = uid;
	f->vo = vo;
	f->changes = at;
	return vo;
}

/* subject is the label of the process that acts: what it was found to be, if that is
 * still so. */
static __always_inline __u32 subject(void)
{
	struct task_struct *self = bpf_get_current_task_btf();
	struct xos_found *f = bpf_task_storage_get(&found, self, 0, 0);
	__u32 *now = changes();

	self = plain(self);
	if (!f || !now || f->changes != *now || f->uid != self->cred->uid.val ||
	    f->cgroup != self->cgroups->dfl_cgrp->kn->id)
		return find();
	return f->vo;
}

/* alike says whether what has this uid and is in this cgroup has the label of the
 * process that acts, whichever that is, because it has both too. */
static __always_inline int alike(struct cgroup *g, __u32 uid)
{
	struct task_struct *self = bpf_get_current_task_btf();

	return self->cgroups->dfl_cgrp == g && self->cred->uid.val == uid;
}

/* probed says whether the loader tries this hook now, on this very thread. */
static __always_inline int probed(__u32 hook)
{
	if (lsm_probe.hook != hook || lsm_probe.tid != (__u32)bpf_get_current_pid_tgid())
		return 0;
	__sync_fetch_and_add(&lsm_probe.fired, 1);
	return 1;
}

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&lsm_counts, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* charge counts a denial for the job, and its VO, or else the user. */
static __always_inline void charge(__u64 job, __u32 uid)
{
	struct xos_used *one = job ? figures_of(XOS_OF_JOB, job) : 0, *vo = 0;

	if (one)
		vo = figures_of(XOS_OF_VO, bpf_get_current_ancestor_cgroup_id(XOS_VO_LEVEL));
	else if (is_grid(uid))
		one = figures_of(XOS_OF_USER, uid);
	if (one)
		__sync_fetch_and_add(&one->refused, 1);
	if (vo)
		__sync_fetch_and_add(&vo->refused, 1);
}

/* tell records a denial that is decided already. */
static __noinline int tell(__u32 hook, __u32 vo, __u32 object_vo, struct xos_object *o)
{
	struct xos_tally *t = bpf_map_lookup_elem(&lsm_tallies, &vo);
	__u64 job = bpf_get_current_ancestor_cgroup_id(XOS_VO_LEVEL + 1);
	__u64 now = bpf_ktime_get_boot_ns();
	struct xos_telling *telling = telling_of(vo);
	struct xos_denial *d;

	count(hook);
	charge(job, bpf_get_current_uid_gid());
	if (t && hook < XOS_HOOKS)
		__sync_fetch_and_add(&t->denied[hook], 1);
	d = entry(telling, now);
	if (!d) {
		lost(telling);
		return 0;
	}
	d->when = now;
	if (o)
		d->object = *o;
	else
		d->object = (struct xos_object){};
	d->endpoint = (struct xos_endpoint){};
	d->object_vo = object_vo;
	d->vo = vo;
	d->hook = hook;
	d->why = 0;
	d->zero = 0;
	d->cgroup = job;
	of_current(d, 1);
	bpf_ringbuf_submit(d, 0);
	return 0;
}

/* refused decides about a subject and an object by their labels: what is the
 * system's is left to the kernel's own rules; who is nobody's gets nothing. */
static __always_inline int refused(__u32 aim, __u32 vo, __u32 object_vo)
{
	if (!vo || !object_vo || (vo == object_vo && vo != XOS_STRANGER))
		return 0;
	return vo == XOS_STRANGER || object_vo == XOS_STRANGER || !shares(vo, object_vo, aim);
}

/* judge decides so, and tells of what it refuses. */
static __always_inline int judge(__u32 hook, __u32 aim, __u32 vo, __u32 object_vo, struct xos_object *o)
{
	if (!refused(aim, vo, object_vo))
		return 0;
	tell(hook, vo, object_vo, o);
	return -EPERM;
}

/* judge_task decides about acting on another process. */
static __always_inline int judge_task(__u32 hook, __u32 aim, struct task_struct *p)
{
	struct xos_object o = {};
	struct task_struct *self = bpf_get_current_task_btf();
	__u32 uid = p->real_cred->uid.val, vo, object_vo;

	/* What is in the same cgroups and has the same uid has the same label. */
	if (self->cgroups == p->cgroups && self->cred->uid.val == uid)
		return 0;
	vo = subject();
	if (!vo)
		return 0;
	object_vo = label(cgroup_id(plain(p)->cgroups->dfl_cgrp), uid);
	if (!refused(aim, vo, object_vo))
		return 0;
	o.id = p->tgid;
	o.uid = uid;
	tell(hook, vo, object_vo, &o);
	return -EPERM;
}

/* judge_surface decides about what a policy may close to a VO's own processes. */
static __always_inline int judge_surface(__u32 hook, __u32 surface)
{
	__u32 vo = subject();
	int allowed = 0;

	/* A compiler that gave back the label, since it is 0 then, would leave the
	 * verifier without what it knows of it. */
	asm volatile("" : "+r"(allowed));
	if (!vo)
		return allowed;
	if (vo != XOS_STRANGER && !((closed(vo) >> surface) & 1))
		return allowed;
	tell(hook, vo, vo, 0);
	return -EPERM;
}

#endif
