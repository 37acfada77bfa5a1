	# What the packages share goes with the last of them.
	rmdir /var/lib/xos /run/xos /etc/xos 2>/dev/null || true
	if [ ! -d /var/lib/xos ] && id xos >/dev/null 2>&1; then
		userdel xos || true
		! getent group xos >/dev/null || groupdel xos || true
	fi
