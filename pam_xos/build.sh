#!/bin/sh
# Builds pam_xos.so.   usage: build.sh OUTPUT
# CC and CFLAGS (optimisation, hardening of the distribution) may be given.
# Needs libpam0g-dev.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
exec ${CC:-cc} -std=gnu11 ${CFLAGS:--O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2} \
	-Wall -Wextra -Werror -fPIC -fvisibility=hidden -shared -o "$out" ./*.c -lpam \
	-Wl,-soname,pam_xos.so -Wl,--version-script=pam_xos.map \
	-Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,noexecstack -Wl,--build-id
