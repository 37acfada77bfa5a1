package xvoms_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/xvoms"
)

// TestSerialsOfManyRefusals: the list of serials is what the verifiers refuse,
// however many bans and revocations of all kinds there are.
func TestSerialsOfManyRefusals(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	var ids []vom.Identity
	for _, name := range []string{"alice", "bob", "carol", "dora", "eve", "fay"} {
		for _, vo := range []string{"physics", "biology"} {
			a, _ := f.member(name + "@" + vo)
			token := must[xvoms.Token](t)(f.CreateToken(ctx, a.User, 0)).Secret
			id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token, Key: fmt.Sprintf("SHA256:%043d", len(ids))}))
			ids = append(ids, id)
			for _, node := range []xos.NodeID{"node1", "node2"} {
				d := must[vom.Identity](t)(f.Delegate(ctx, id, node, vom.Origin{Until: id.NotAfter}, id.NotAfter))
				ids = append(ids, d)
			}
		}
	}
	for _, name := range []xos.NodeID{"node1", "node3"} {
		id, token, err := f.CreateJoinToken(ctx, 0, 0)
		f.ok(err)
		f.ok(second(f.Join(ctx, id, token.Secret, vom.MachineClaim{Node: name, Service: vom.ServiceNode, Key: [32]byte{1}}, "192.0.2.1")))
	}
	check := func(when string, want int) {
		t.Helper()
		b := f.Bundle()
		refused := 0
		for _, id := range ids {
			_, revoked := credential.Revoked(b.Revocations, id)
			_, banned := credential.Banned(b.Bans, id, f.now())
			if revoked || banned {
				refused++
			}
			if listed := slices.Contains(b.RevokedSerials, id.Serial); listed != (revoked || banned) {
				t.Errorf("%s: %s of %s on %q is listed: %v, refused: %v %v", when, id.Serial, id.Account, id.Node, listed, revoked, banned)
			}
		}
		if refused != want {
			t.Errorf("%s: %d refused, want %d", when, refused, want)
		}
	}
	check("nothing", 0)
	f.ok(f.RemoveMemberTo(ctx, account("alice@physics"), vom.FateFreeze, "", "by root"))
	check("a member", 3)
	f.ok(f.Revoke(ctx, ids[3].Serial, ids[3].Issued, "stolen"))
	check("a certificate", 6)
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanUser, Subject: "bob"}, 0)))
	check("a user banned", 12)
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanAccount, Subject: "carol@physics"}, 0)))
	check("an account banned", 15)
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanCertificate, Subject: ids[15].Serial}, 0)))
	check("a certificate banned", 18)
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanKey, Subject: ids[18].Key}, 0)))
	check("a key banned", 21)
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanNode, Subject: "node2"}, 0)))
	check("a machine banned", 26)
	f.ok(f.RemoveMachine(ctx, "node1", "", "by root"))
	check("a machine removed", 31)
	f.ok(f.DeleteUser(ctx, "eve", "by root"))
	check("a user deleted", 33)
	for _, name := range []string{"bob", "carol", "dora", "fay"} {
		f.ok(f.RemoveMember(ctx, account(name+"@physics"), "", "by root"))
	}
	f.ok(f.DeleteVO(ctx, "physics", "by root"))
	check("a VO deleted", 34)
}
