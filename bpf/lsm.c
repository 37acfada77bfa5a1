//go:build ignore
// SPDX-License-Identifier: GPL-2.0
// Keeps VOs apart at the kernel's own checks (level A): one file an aim. They
// are one object, since they share their maps; each program is loaded and
// attached by itself.
//
// All of them: an earlier refusal stands; what is the system's is none of
// theirs; decide first, then tell; no string is looked at.
#include "kernel.h"
#include "label.h"

char LICENSE[] SEC("license") = "GPL";

/* Where else they are pointed at only, the object would name them and no more. */
const struct xos_cgroup *whose __attribute__((unused));
const struct xos_tally *tally __attribute__((unused));
const enum xos_hook *hook __attribute__((unused));

#include "lsm_signals.c"
#include "lsm_debug.c"
#include "lsm_scheduling.c"
#include "lsm_files.c"
#include "lsm_exec.c"
#include "lsm_sockets.c"
#include "lsm_ipc.c"
#include "lsm_keys.c"
#include "lsm_kernel.c"
#include "lsm_self.c"
