#!/bin/sh
# Builds libsubid_xos.so.   usage: build.sh OUTPUT
# CC and CFLAGS (optimisation, hardening of the distribution) may be given.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
# nodelete: libsubid may unload a module while one of its functions runs in
# another thread, and would for nothing.
exec ${CC:-cc} -std=gnu11 ${CFLAGS:--O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2} \
	-Wall -Wextra -Werror -fPIC -fvisibility=hidden -shared -o "$out" src/*.c \
	-Wl,-soname,libsubid_xos.so -Wl,--version-script=libsubid_xos.map \
	-Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,noexecstack -Wl,--build-id
