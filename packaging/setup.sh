#!/usr/bin/env bash
# Installs what building and testing XtreemOS needs, on Debian 12 or 13, as
# root. It is quick when all is there.
set -euo pipefail

packages=(gcc libc6-dev make git ca-certificates libpam0g-dev pkg-config libseccomp-dev
	debootstrap systemd-container fuse3 iproute2 procps openssh-client openssh-server
	dpkg-dev fakeroot lintian pamtester attr acl)

missing() {
	local p
	for p in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
	done
}

# A Go that can fetch the version go.mod names is enough.
go_ok() {
	local v
	v=$(go env GOVERSION 2>/dev/null) || return 1
	[ "$(printf '%s\n' go1.21 "$v" | sort -V | head -n 1)" = go1.21 ]
}

need=$(missing)
go_ok || need="$need golang-go"
[ -n "${need//[[:space:]]/}" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "setup: run as root to install:" $need >&2; exit 1; }
echo "setup: installing" $need
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Services of packages that are only needed for their files stay off.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get install -y -q --no-install-recommends $need
if ! go_ok; then
	echo "setup: Debian's golang-go is too old here; install Go 1.21 or newer (on Debian 12: golang-go from bookworm-backports)" >&2
	exit 1
fi
