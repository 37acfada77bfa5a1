#!/usr/bin/env bash
# Builds the programs and the .deb packages.   usage: deb.sh [OUTPUT_DIR]
#
# Reproducible: the same commit gives the same packages.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}")
work=build/deb
version=$(cat packaging/VERSION)
arch=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
umask 022
mkdir -p "$out"

# Built already, from exactly these files?
key=$({ git ls-files -s; git diff; git ls-files -o --exclude-standard -z | xargs -0r sha256sum; go version; } 2>/dev/null | sha256sum)
if [ "$(cat "$out/.key" 2>/dev/null)" = "$key" ]; then
	echo "packages are up to date in $out"
	exit 0
fi
rm -rf "$work" "$out"/*.deb "$out/.key"
mkdir -p "$work"

go_build() { # CGO OUTPUT PACKAGE
	CGO_ENABLED=$1 go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$2" "$3"
}

bin=$work/bin
mkdir -p "$bin"
echo "building programs"
for c in xos xos-core xos-node xos-userdb xos-osd mount.xosfs; do
	go_build 0 "$bin/$c" "./cmd/$c"
done
go_build 1 "$bin/xos-job" ./cmd/xos-job # its first steps in a container are C
strip --strip-unneeded "$bin/xos-job"
nss_xos/build.sh "$bin/libnss_xos.so.2"
subid_xos/build.sh "$bin/libsubid_xos.so"
pam_xos/build.sh "$bin/pam_xos.so"
principals_xos/build.sh "$bin/xos-principals" "$version"
strip --strip-unneeded "$bin/libnss_xos.so.2" "$bin/libsubid_xos.so" "$bin/pam_xos.so" "$bin/xos-principals"

lib=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
place() { # PACKAGE MODE FILE TARGET
	install -D -m "$2" "$3" "$work/$1/$4"
}

manual() { # PACKAGE PAGE...
	go run ./packaging/man "$work/$1/usr/share/man" "${@:2}"
}

stage() { # PACKAGE
	local p=$1 d=$work/$1
	mkdir -p "$d"
	cp -a "packaging/$p/root/." "$d/"
	case $p in
	xtreemos-client)
		place $p 755 "$bin/xos" usr/bin/xos
		for n in xsub xps xkill xwait xjob; do ln -s xos "$d/usr/bin/$n"; done
		"$bin/xos" man "$d/usr/share/man/man1"
		manual $p client.toml.5
		packaging/completions.sh "$bin/xos" "$d"
		;;
	xtreemos-node)
		place $p 755 "$bin/xos-node" usr/sbin/xos-node
		place $p 755 "$bin/xos-userdb" usr/sbin/xos-userdb
		place $p 755 "$bin/mount.xosfs" usr/sbin/mount.xosfs
		place $p 755 "$bin/xos-principals" usr/libexec/xos/xos-principals
		place $p 755 "$bin/xos-job" usr/libexec/xos/xos-job
		place $p 644 "$bin/libnss_xos.so.2" "$lib/libnss_xos.so.2"
		place $p 644 "$bin/libsubid_xos.so" "$lib/libsubid_xos.so"
		place $p 644 "$bin/pam_xos.so" "$lib/security/pam_xos.so"
		manual $p xos-node.8 xos-userdb.8 mount.xosfs.8 node.toml.5
		;;
	xtreemos-core)
		place $p 755 "$bin/xos-core" usr/sbin/xos-core
		manual $p xos-core.8 core.toml.5
		;;
	xtreemos-storage)
		place $p 755 "$bin/xos-osd" usr/sbin/xos-osd
		manual $p xos-osd.8 osd.toml.5
		;;
	esac
	[ ! -d "$d/usr/share/man" ] || find "$d/usr/share/man" -type f -exec gzip -9n {} +
	documents "$p" "$d"
	control "$p" "$d"
	chmod -R u=rwX,go=rX "$d"
	chmod 755 "$d"/DEBIAN/p* 2>/dev/null || true
	find "$d" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch -h -d "@$SOURCE_DATE_EPOCH"
	dpkg-deb --root-owner-group -Zgzip -z6 --build "$d" "$out/${p}_${version}_$arch.deb" >/dev/null
	echo "built ${p}_${version}_$arch.deb"
}

documents() { # PACKAGE DIRECTORY
	local doc=$2/usr/share/doc/$1
	mkdir -p "$doc"
	cat >"$doc/copyright" <<C
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: XtreemOS

Files: *
Copyright: 2026 XtreemOS developers
License: Apache-2.0
 On Debian systems the text of the licence is in
 /usr/share/common-licenses/Apache-2.0.

Files: bpf/*.c bpf/*.h
Copyright: 2026 XtreemOS developers
License: GPL-2
 On Debian systems the text of the licence is in
 /usr/share/common-licenses/GPL-2.
C
	printf '%s (%s) unstable; urgency=medium\n\n  * This version.\n\n -- XtreemOS developers <xtreemos@users.noreply.github.com>  %s\n' \
		"$1" "$version" "$(date -Ru -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
}

# What the C in a package needs of this release's libraries, by its symbols: built
# on a newer release than it is for, it must not be unpacked there, since every login
# of the machine loads the PAM module. So it is a pre-dependency.
libraries() { # DIRECTORY
	local dir elf=()
	dir=$(realpath "$1")
	while IFS= read -r -d '' f; do
		! readelf -d "$f" 2>/dev/null | grep -q '(NEEDED)' || elf+=("$f")
	done < <(find "$dir" -type f -print0)
	mkdir -p "$work/shlibs/debian"
	: >"$work/shlibs/debian/control"
	(cd "$work/shlibs" && dpkg-shlibdeps -O "${elf[@]}") | sed -n 's/^shlibs:Depends=//p'
}

control() { # PACKAGE DIRECTORY
	local c=packaging/$1/DEBIAN f needed=
	mkdir -p "$2/DEBIAN"
	if grep -q @LIBRARIES@ "$c/control.in"; then
		needed=$(libraries "$2")
		[ -n "$needed" ] || { echo "$1: no library found that it needs" >&2; exit 1; }
	fi
	sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk "$2" | cut -f1)/; s/@LIBRARIES@/$needed/" \
		"$c/control.in" >"$2/DEBIAN/control"
	[ ! -e "$c/triggers" ] || cp "$c/triggers" "$2/DEBIAN/triggers"
	for f in postinst prerm postrm; do
		[ ! -e "$c/$f" ] || sed -e '/^@FORGET@$/{r packaging/forget.sh
d}' "$c/$f" >"$2/DEBIAN/$f"
	done
	[ ! -d "$2/etc" ] || (cd "$2" && find etc -type f -printf '/%p\n' | sort) >"$2/DEBIAN/conffiles"
	(cd "$2" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$2/DEBIAN/md5sums"
}

for p in xtreemos-client xtreemos-node xtreemos-core xtreemos-storage; do stage "$p"; done
echo "$key" >"$out/.key"
