#!/usr/bin/env bash
# Installs what building and testing XtreemOS needs, on Debian 12 or 13, as
# root. It is quick when all is there.
set -euo pipefail

packages=(gcc libc6-dev make git ca-certificates libpam0g-dev
	debootstrap systemd-container fuse3 iproute2 procps openssh-client openssh-server
	dpkg-dev fakeroot lintian pamtester uidmap valgrind strace libc6-dbg attr acl
	qemu-system-x86 e2fsprogs clang libclang-rt-dev)
bookworm() { grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; }
# BPF objects are compiled again and compared, with the one compiler that made
# them; Debian 13 has it no more.
if bookworm; then
	packages+=(clang-14 llvm-14 libbpf-dev)
fi

missing() {
	local p
	for p in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
	done
	command -v go >/dev/null || echo golang-go
}

# Debian 12's own QEMU (7.2) takes half as long again to boot as 10, and gets the processor's
# flags wrong now and then where the machine's clock is counted. The newer one is among
# Debian's backports, from which nothing else comes unless it is asked for. Only tests in
# virtual machines are the worse for the old one: who is not root goes on with it.
old_qemu() {
	[ "$(id -u)" = 0 ] && bookworm && dpkg --compare-versions "$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null)" lt 1:10
}

newer_qemu() {
	local list=/etc/apt/sources.list.d/bookworm-backports.list mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk '$2 == "bookworm" && $1 ~ "/debian/?$" && !n++ { print $1 }')
	if ! apt-cache policy | grep "n=bookworm-backports" >/dev/null; then
		echo "setup: adding Debian's backports, for QEMU: $list"
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bookworm-backports main" >"$list"
		apt-get update -q -o "Dir::Etc::SourceList=$list" -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=false \
			-o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o APT::Update::Error-Mode=any || { rm -f "$list"; return 1; }
	fi
	apt-get install -y -q --no-install-recommends -t bookworm-backports qemu-system-x86
}

# A Go that can fetch the version go.mod names is enough.
go_ok() {
	local v
	v=$(go env GOVERSION 2>/dev/null) || return 1
	[ "$(printf '%s\n' go1.21 "$v" | sort -V | head -n 1)" = go1.21 ]
}

# An older one (Debian 12's) can still fetch and verify it as the module that it
# is; it only does not know that this one has programs in it. build/go is where
# the Makefile looks first.
fetch_go() {
	local want module cache tmp dir
	want=$(sed -n 's/^go //p' go.mod)
	module=golang.org/toolchain@v0.0.1-go$want.linux-$(dpkg --print-architecture)
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/xtreemos/go$want
	if [ ! -x "$cache/bin/go" ]; then
		echo "setup: fetching Go $want"
		tmp=$(mktemp -d)
		# Outside of this module, whose go.mod an old Go cannot read.
		dir=$(cd "$tmp" && GOFLAGS= go mod download -json "$module" | sed -n 's/^.*"Dir": "\(.*\)",\?$/\1/p')
		[ -n "$dir" ] || { echo "setup: cannot fetch $module; install Go $want by hand" >&2; exit 1; }
		mkdir -p "$(dirname "$cache")"
		rm -rf "$cache.new"
		cp -r "$dir" "$cache.new"
		chmod -R u+w "$cache.new"
		find "$cache.new/bin" "$cache.new/pkg/tool" -type f -exec chmod 755 {} +
		mv "$cache.new" "$cache"
		rm -rf "$tmp"
	fi
	mkdir -p build
	ln -sfn "$cache" build/go
}

cd "$(dirname "$0")/.."
need=$(missing)
if [ -z "${need//[[:space:]]/}" ] && ! old_qemu; then
	go_ok || fetch_go
	exit 0
fi
[ "$(id -u)" = 0 ] || { echo "setup: run as root to install:" $need >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
# Services of packages that are only needed for their files stay off.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
if [ -n "${need//[[:space:]]/}" ]; then
	echo "setup: installing" $need
	apt-get update -q
	apt-get install -y -q --no-install-recommends $need
fi
# Last: by itself it would bring newer libraries, with which others cannot be installed.
if old_qemu; then
	newer_qemu || echo "setup: no QEMU from Debian's backports: tests in virtual machines take longer" >&2
fi
go_ok || fetch_go
