# Adds the kernels, and what figures are measured with, to the base root, in a
# layer of its own.
# usage: kernels.sh BASE LAYER MIRROR PROXY SUITE...
# LAYER gets the overlay's upper directory; it is run in a mount namespace and
# a pid namespace of its own.
set -eu
base=$1 layer=$2 mirror=$3 proxy=$4
shift 4
mkdir -p "$layer/upper" "$layer/work" "$layer/root"
root=$layer/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$layer/upper,workdir=$layer/work" "$root"
mount -t proc proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
apt() { chroot "$root" env DEBIAN_FRONTEND=noninteractive http_proxy="$proxy" apt-get -q -y "$@"; }

: >"$root/etc/apt/sources.list.d/kernels.list"
for suite in "$@"; do
	echo "deb $mirror $suite main" >>"$root/etc/apt/sources.list.d/kernels.list"
done
apt update
apt install --no-install-recommends initramfs-tools lz4 xz-utils
# Small: what is needed to find the root, and no more; and soon unpacked.
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' "$root/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk ext4 >"$root/etc/initramfs-tools/modules"
mkdir -p "$root/boot"
for suite in "$@"; do
	# The metapackage is of one release at a time; what it stands for is not.
	version=$(chroot "$root" apt-cache madison linux-image-cloud-amd64 | awk -v s="$suite/main" '$0 ~ s { print $3; exit }')
	image=$(chroot "$root" apt-cache show "linux-image-cloud-amd64=$version" | sed -n 's/^Depends: \([^ ]*\).*/\1/p')
	apt install --no-install-recommends "$image"
	release=${image#linux-image-}
	find "$root/lib/modules/$release" -name '*.ko.xz' -printf "/lib/modules/$release/%P\n" | xargs -r chroot "$root" xz -d
	chroot "$root" depmod "$release"
	chroot "$root" update-initramfs -u -k "$release"
	ln -s "vmlinuz-$release" "$root/boot/vmlinuz.$suite"
	ln -s "initrd.img-$release" "$root/boot/initrd.$suite"
done
# What test/bench/guardcost works with and is compared with.
apt install --no-install-recommends apparmor git libc6-dev sqlite3 tcc
apt clean
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/apt/sources.list.d/kernels.list"
rm -rf "$root"/var/lib/apt/lists/*
umount "$root/proc" "$root"
rmdir "$layer/root"
rm -rf "$layer/work"
