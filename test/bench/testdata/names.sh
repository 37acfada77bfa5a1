# Furnishes a Debian root for measuring the name service, in mount, process and
# network namespaces that end with this script, and measures.
# usage: names.sh ROOT WORK ROUNDS MILLISECONDS SOURCE...
# WORK has run (for /run/xos), lib (for modules), src and passwd.
set -euo pipefail
root=$1 work=$2
shift 2
mkdir -p "$work"/{layer,root}
mount -t tmpfs tmpfs "$work/layer"
mkdir "$work"/layer/{upper,work}
mount -t overlay -o "lowerdir=$root,upperdir=$work/layer/upper,workdir=$work/layer/work" overlay "$work/root"
cd "$work/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p run/xos run/lib run/names run/systemd/userdb
mount --bind "$work/run" run/xos
mount --bind "$work/lib" run/lib
cp -r "$work/src/." run/names
cp "$work/passwd" run/names/passwd
cat >run/names/inner <<'INNER'
set -euo pipefail
cd /run/names
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin LD_LIBRARY_PATH=/run/lib
unset NOTIFY_SOCKET
ip link set lo up
gcc -O2 -Wall -Wextra -Werror -o names names.c
gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o /run/lib/libnss_constant.so.2 constant.c
last=$(tail -n 1 passwd)
IFS=: read -r name _ uid gid _ home shell <<<"$last"
mkdir -p /etc/userdb
printf '{"userName":"%s","uid":%d,"gid":%d,"homeDirectory":"%s","shell":"%s"}\n' "$name" "$uid" "$gid" "$home" "$shell" >"/etc/userdb/$name.user"
ln -s "$name.user" "/etc/userdb/$uid.user"
if [ -x /usr/sbin/sssd ]; then
	cp passwd /etc/passwd
	mkdir -p /etc/sssd /var/log/sssd /var/lib/sss/{db,mc,pipes/private,gpo_cache,secrets,pubconf} /run/sssd
	cat >/etc/sssd/sssd.conf <<'CONF'
[sssd]
services = nss
domains = local
[nss]
filter_users = root
memcache_timeout = 300
[domain/local]
id_provider = proxy
proxy_lib_name = files
auth_provider = none
access_provider = permit
CONF
	chmod 600 /etc/sssd/sssd.conf
	# It gives up the capability to pass over owners.
	chown -R root:root /etc/sssd /var/lib/sss /var/log/sssd /run/sssd
	sssd -i --logger=files >sssd.log 2>&1 &
	for _ in {1..100}; do
		timeout 3 getent -s sss passwd "$name" >/dev/null && break
		sleep 0.2
	done
	timeout 3 getent -s sss passwd "$name" >/dev/null || {
		echo "sssd does not answer:" >&2
		tail -n 20 sssd.log /var/log/sssd/* >&2
		exit 1
	}
fi
./names "$@"
INNER
exec chroot . bash run/names/inner "$@"
