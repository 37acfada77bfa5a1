#!/bin/sh
# Builds a fuzzer of the modules.   usage: build.sh reply|snapshot OUTPUT
set -eu
cd "$(dirname "$0")"
flags="-std=gnu11 -O1 -g -Wall -Wextra -Werror -fno-omit-frame-pointer
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
objects=
compile() { # SOURCE [FLAG...]
	source=$1
	shift
	object=$work/$(echo "$source" | tr / _).o
	clang $flags "$@" -c -o "$object" "$source"
	objects="$objects $object"
}
for f in ../../../nss_xos/*.c; do
	compile "$f" -include world.h
done
if [ "$1" = reply ]; then # only libnss_xos reads snapshots
	for f in ../../../pam_xos/*.c; do
		# The shared parts are there already.
		[ "$(basename "$f")" = shim.c ] || compile "$f" -include world.h
	done
	for f in ../../../subid_xos/src/*.c; do
		[ "$(basename "$f")" = shim.c ] || compile "$f" -include world.h
	done
	compile ../../../principals_xos/src/main.c -include world.h -Dmain=principals_main \
		-Dexit=world_exit -Dputs=world_puts -Dxos_call=principals_call
fi
for f in world.c require.c "$1.c"; do
	compile "$f"
done
clang $flags -fsanitize=fuzzer -o "$2" $objects
