/* SPDX-License-Identifier: Apache-2.0
 * The shared parts, compiled into this module: build.sh takes the folder's own
 * files only. */
#include "../../session/shim/xos_client.c"
#include "../../session/shim/xos_fields.c"
#include "../../session/shim/xos_names.c"
