#!/bin/sh
# Builds xos-principals.   usage: build.sh OUTPUT [VERSION]
# CC and CFLAGS (optimisation, hardening of the distribution) may be given.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
exec ${CC:-cc} -std=gnu11 ${CFLAGS:--O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2} \
	-DXOS_RELEASE="\"${2:-dev}\"" \
	-Wall -Wextra -Werror -fPIE -pie -o "$out" src/*.c \
	-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--build-id
