/* SPDX-License-Identifier: Apache-2.0
 * The shared parts, compiled into this module: cgo and build.sh both take the
 * folder's own files only. */
#include "../session/shim/xos_client.c"
#include "../session/shim/xos_fields.c"
#include "../session/shim/xos_fork.c"
#include "../session/shim/xos_map.c"
#include "../session/shim/xos_names.c"
#include "../session/shim/xos_open.c"
#include "../session/shim/xos_part.c"
#include "../session/shim/xos_right.c"
#include "../session/shim/xos_snapshot.c"
