package subidxos_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/testbed"
)

// TestRootNewuidmap: shadow's own newuidmap and newgidmap, which are setuid, let
// a grid user have a container with her own range, and with nothing else; and
// local users with theirs. That is so with this machine's shadow, and with that
// of the Debian which the nodes run.
func TestRootNewuidmap(t *testing.T) {
	for _, c := range []string{"newuidmap", "newgidmap"} {
		need.Command(t, c)
	}
	t.Run("this machine", func(t *testing.T) { newuidmap(t, "/") })
	t.Run(string(testbed.Chosen()), func(t *testing.T) {
		need.Command(t, "debootstrap")
		root, err := testbed.Chosen().Base(context.Background(), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		newuidmap(t, root)
	})
}

// contain is a shell script of a user. A process of hers in a new user namespace
// waits while its ids are mapped, and then does what only they allow.
//
//	usage: contain UID SUBUID COUNT [SUBGID]
const contain = `set -e
uid=$1 sub=$2 count=$3 gsub=${4:-$2}
mkfifo /tmp/in /tmp/out
unshare -U sh -c 'echo; read -r _; setpriv --reuid=7 --regid=7 --clear-groups sh -c "id -u; id -g"' </tmp/in >/tmp/out &
exec 5>/tmp/in 6</tmp/out
read -r _ <&6
newuidmap $! 0 $uid 1 1 $sub $count || { kill $!; exit 3; }
newgidmap $! 0 $uid 1 1 $gsub $count || { kill $!; exit 4; }
cat /proc/$!/uid_map
echo >&5
cat <&6
`

// inside has the room's /etc and /run, and the modules where setuid programs
// find them, in a root directory that is as before afterwards. There it lets
// users contain themselves, one after the other. (chroot would not do: in one
// there are no user namespaces.)
const inside = `set -e
root=$1
mkdir -p /run/upper /run/work /run/root
mount -t overlay -o lowerdir=$root,upperdir=/run/upper,workdir=/run/work none /run/root
cd /run/root
for f in nsswitch.conf passwd subuid subgid; do cp /etc/$f etc/; done
for d in usr/lib/*-linux-gnu; do cp /run/lib/lib*_xos.so* $d/; done
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mkdir run/xos run/lib
mount --bind /run/xos run/xos
mount --bind /run/lib run/lib
mount -t tmpfs -o mode=1777 tmp tmp
unset LD_LIBRARY_PATH
cd . # into the root as it is now
pivot_root . .
umount -l .
cd /
while read -r uid groups ids; do
	echo =
	setpriv --reuid=$uid --regid=$uid $groups timeout 10 sh /run/lib/contain $uid $ids 2>&1 </dev/null || echo exit status $?
	rm -f /tmp/in /tmp/out
done </run/lib/tries`

// a try is what a user wants mapped, and whether she is let.
type try struct {
	what string
	uid  int
	ids  string
	want string // all that is printed; or, in an error, a part
}

func newuidmap(t *testing.T, root string) {
	r := room(t)
	new(wiretest.Service).Serve(t, r.Socket())
	wiretest.Write(t, filepath.Join(r.Lib, "contain"), contain)
	const denied = "not allowed"
	mapped := func(uid, sub, count int) string { return fmt.Sprintf("0 %d 1 1 %d %d 7 7", uid, sub, count) }
	hers := try{"her range", wiretest.AliceUID, fmt.Sprint(first, " 65536"), mapped(wiretest.AliceUID, first, 65536)}
	local := try{"a local user's", 4242, "100000 10 200000", mapped(4242, 100000, 10)}
	refused := hers
	refused.what, refused.want = "where it is off", denied
	local2 := local
	local2.what = "a local user's, where it is off"
	for source, tries := range map[string][]try{
		"xos": {
			hers, local,
			{"one more", wiretest.AliceUID, fmt.Sprint(first, " 65537"), denied},
			{"the next", wiretest.AliceUID, fmt.Sprint(last+1, " 10"), denied},
			{"bob himself", wiretest.AliceUID, fmt.Sprint(wiretest.BobUID, " 1"), denied},
			{"root", wiretest.AliceUID, "0 1", denied},
			{"a local user's, by her", wiretest.AliceUID, "100000 10", denied},
			{"a line's, of her", wiretest.AliceUID, "400000 10", denied},
			{"hers, by bob", wiretest.BobUID, fmt.Sprint(first, " 10"), denied},
			{"hers, by a local user", 4242, fmt.Sprint(first, " 10"), denied},
		},
		"files": {refused, local2},
	} {
		r.Subid(t, source)
		var text strings.Builder
		for _, c := range tries {
			groups := "--clear-groups"
			if c.uid != 4242 {
				groups = fmt.Sprint("--groups=", wiretest.PhysicsGID)
			}
			fmt.Fprintln(&text, c.uid, groups, c.ids)
		}
		wiretest.Write(t, filepath.Join(r.Lib, "tries"), text.String())
		out := output(t, r.Command("timeout", "120", "sh", "-c", inside, "sh", root))
		got := strings.Split(out, "=\n")[1:]
		if len(got) != len(tries) {
			t.Fatalf("%s: %q", source, out)
		}
		for i, c := range tries {
			words := strings.Join(strings.Fields(got[i]), " ")
			if words != c.want && (c.want != denied || !strings.HasSuffix(words, "exit status 3") || !strings.Contains(words, denied)) {
				t.Errorf("%s: %q, want %q", c.what, words, c.want)
			}
		}
	}
}
