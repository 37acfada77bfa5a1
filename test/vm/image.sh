# Makes the root file system of the machines.
# usage: image.sh BASE LAYER WORK AGENT DEB...
# WORK/root.img comes out; it is run in a mount namespace and a pid namespace of
# its own. The packages are installed with apt, as a user would.
set -eu
base=$1 layer=$2 work=$3 agent=$4
shift 4
mkdir -p "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$layer/upper:$base,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"

echo node1 >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.0.2.15 node1 core client\n' >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
: >"$root/etc/apt/sources.list"
mkdir -p "$root/etc/systemd/network" "$root/etc/systemd/journald.conf.d"
printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\n' >"$root/etc/systemd/network/10-vm.network"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/vm.conf"

install -D -m 755 "$agent" "$root/usr/local/libexec/xos-vm-guest"
cat >"$root/etc/systemd/system/xos-vm-guest.service" <<U
[Unit]
Description=Runs commands from outside
DefaultDependencies=no
After=systemd-udev-trigger.service local-fs.target

[Service]
ExecStart=/usr/local/libexec/xos-vm-guest
Restart=always
RestartSec=1
# What tests do to the machine must not end what they do it with.
Slice=-.slice
OOMScoreAdjust=-1000
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
CPUWeight=10000
KillMode=mixed
[Install]
WantedBy=sysinit.target
U
chroot "$root" systemctl -q enable xos-vm-guest.service systemd-networkd.service
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer fstrim.timer systemd-networkd-wait-online.service systemd-firstboot.service \
	getty.target serial-getty@ttyS0.service getty@tty1.service \
	systemd-pcrlock.socket systemd-pcrextend.socket systemd-hibernate-clear.service ldconfig.service \
	modprobe@configfs.service modprobe@efi_pstore.service modprobe@drm.service \
	systemd-random-seed.service systemd-update-done.service systemd-journal-catalog-update.service kmod-static-nodes.service \
	dev-hugepages.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-network-generator.service systemd-pstore.service \
	man-db.timer apparmor.service lastlog2-import.service wtmpdb-update-boot.service
# It looks for a machine of hypervisors that this is not, with four modules.
mkdir -p "$root/etc/systemd/system-generators"
ln -s /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"
# Drivers of hardware that every PC has and that no test needs: each costs a
# second to unpack when everything is emulated.
printf 'blacklist %s\n' ata_piix ata_generic pata_acpi libata i2c_piix4 parport_pc floppy pcspkr \
	aesni_intel ghash_clmulni_intel crct10dif_pclmul crc32_pclmul sha512_ssse3 sha256_ssse3 sha1_ssse3 \
	cryptd powernow_k8 acpi_cpufreq amd_energy kvm_amd kvm joydev evdev psmouse serio_raw qemu_fw_cfg >"$root/etc/modprobe.d/vm.conf"

# su has who is refused wait for a second.
echo 'FAIL_DELAY 0' >>"$root/etc/login.defs"

if [ $# -gt 0 ]; then
	mkdir "$root/var/tmp/debs"
	cp "$@" "$root/var/tmp/debs/"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	chroot "$root" env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get install -y -q --no-install-recommends /var/tmp/debs/*.deb'
	rm -r "$root/var/tmp/debs" "$root/usr/sbin/policy-rc.d"
fi

cp -L "$root"/boot/vmlinuz.* "$root"/boot/initrd.* "$work/"
umount "$root/proc"
mkfs.ext4 -q -F -E lazy_itable_init=1 -d "$root" "$work/root.img" 6G
umount "$root"
rm -rf "$work/upper" "$work/work" "$work/root"
