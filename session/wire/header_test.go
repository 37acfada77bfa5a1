package wire

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
)

// TestHeader compares Go's constants with the header that defines them.
func TestHeader(t *testing.T) {
	text, err := os.ReadFile("../shim/xos_wire.h")
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define XOS_(\w+)\s+("[^"]*"|[0-9a-fx]+)u?\b?`).FindAllStringSubmatch(string(text), -1) {
		defined[m[1]] = m[2]
	}
	ms := func(o op) int64 { return o.patience().Milliseconds() }
	for name, want := range map[string]any{
		"MAGIC": int64(magic), "VERSION": int64(version), "HEADER": int64(headerSize),
		"MAX_BODY": int64(maxBody), "MAX_MESSAGE": int64(maxMessage), "MAX_GROUPS": int64(maxGroups),
		"MAX_MEMBERS": int64(maxMembers), "MAX_PASSWORD": int64(maxSecret), "MAX_NAME": int64(xos.MaxName),
		"FIRST_ID": int64(firstID), "LAST_ID": int64(lastID),
		"OP_GETPWNAM": int64(opGetPwNam), "OP_GETPWUID": int64(opGetPwUID), "OP_GETGRNAM": int64(opGetGrNam),
		"OP_GETGRGID": int64(opGetGrGID), "OP_INITGROUPS": int64(opInitGroups), "OP_PRINCIPALS": int64(opPrincipals),
		"OP_PAM_AUTH": int64(opPAMAuth), "OP_PAM_ACCOUNT": int64(opPAMAccount), "OP_PAM_OPEN": int64(opPAMOpen),
		"OP_PAM_CLOSE": int64(opPAMClose), "OP_SUBIDS": int64(opSubIDs), "OP_SUBID_OWNER": int64(opSubIDOwner),
		"ST_OK": int64(stOK), "ST_NOTFOUND": int64(stNotFound), "ST_DENIED": int64(stDenied),
		"ST_INVALID": int64(stInvalid), "ST_UNAVAIL": int64(stUnavail), "ST_NOTSUPPORTED": int64(stNotSupported),
		"ST_EXPIRED": int64(stExpired), "ST_INTERNAL": int64(stInternal),
		"LOOKUP_MS": ms(opGetPwNam), "ACCOUNT_MS": ms(opPAMAccount), "AUTH_MS": ms(opPAMAuth), "OPEN_MS": ms(opPAMOpen),
		"CLOSE_MS": ms(opPAMClose), "CONNECT_MS": connectTime.Milliseconds(),
		"SOCKET": SocketPath, "SNAP_DIR": SnapshotDir,
		"SNAP_MAGIC": snapMagic, "SNAP_VERSION": int64(snapVersion), "SNAP_HEADER": int64(snapHeader),
		"SNAP_MAX": int64(snapMax), "SNAP_MIX": int64(snapMix), "SNAP_USER": int64(snapUser), "SNAP_GROUP": int64(snapGroup),
		"SNAP_GONE": int64(snapGone), "SNAP_BASED": int64(snapBased), "SNAP_BASED_HEADER": int64(snapBasedHeader), "SNAP_RUN": int64(snapRun),
		"SNAP_GENERATION": int64(snapGen),
	} {
		var got any
		if s, err := strconv.Unquote(defined[name]); err == nil && strings.HasPrefix(defined[name], `"`) {
			got = s
		} else if n, err := strconv.ParseInt(defined[name], 0, 64); err == nil {
			got = n
		}
		if got != want {
			t.Errorf("XOS_%s is %v in the header, %v in Go", name, got, want)
		}
	}
	if got := SnapshotPath("/d", "physics"); got != "/d/vo-physics.snap" {
		t.Errorf("SnapshotPath = %s", got)
	}
}

// TestStatus: every kind of error survives the wire as far as it can be told.
func TestStatus(t *testing.T) {
	for _, k := range []xos.Kind{xos.NotFound, xos.Permission, xos.Invalid, xos.Unavailable, xos.NotSupported, xos.Expired, xos.Internal} {
		if got := statusOf(xos.Errorf(k, "x")).kind(); got != k {
			t.Errorf("%v becomes %v", k, got)
		}
	}
	if got := status(99).kind(); got != xos.Internal {
		t.Errorf("an unknown status is %v", got)
	}
}
