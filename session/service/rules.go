package service

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// rules says what each rule of this machine says now of an account's login, in
// the order in which they are asked: of a certificate of hers, where one is
// given, or else of any that is valid. All are asked, though one refuses.
func (s *Service) rules(ctx context.Context, a xos.Account, cert *vom.Identity) (out []vom.Verdict) {
	say := func(rule vom.Rule, refused bool, format string, args ...any) {
		out = append(out, vom.Verdict{Rule: rule, Refused: refused, Text: fmt.Sprintf(format, args...)})
	}
	b, now := s.Bundle(), s.Now()
	who := vom.Identity{Attributes: xos.Attributes{Account: a}} // issued who knows when
	if cert != nil {
		who = *cert
	}
	if served := s.serves(a.VO); served {
		say(vom.RuleServed, false, "%s serves VO %s", s.cfg.Node, a.VO)
	} else {
		say(vom.RuleServed, true, "%s does not serve VO %s", s.cfg.Node, a.VO)
	}
	until := b.ServesUntil(a.VO)
	switch news := clock(b.Issued); {
	case now.After(until):
		say(vom.RuleNews, true, "%s has had no news from the core since %s, and lets nobody in", s.cfg.Node, news)
	case s.Reachable():
		say(vom.RuleNews, false, "the core was heard at %s", news)
	default:
		say(vom.RuleNews, false, "the core cannot be reached; %s decides by the news of %s, until %s", s.cfg.Node, news, clock(until))
	}
	if cert != nil && !cert.NotAfter.IsZero() {
		switch {
		case now.Before(who.NotBefore):
			say(vom.RuleValidity, true, "certificate %s is valid only from %s on", who.Serial, clock(who.NotBefore))
		case !now.Before(who.NotAfter):
			say(vom.RuleValidity, true, "certificate %s expired at %s", who.Serial, clock(who.NotAfter))
		default:
			say(vom.RuleValidity, false, "certificate %s is valid until %s", who.Serial, clock(who.NotAfter))
		}
	}
	if ban, ok := credential.Banned(b.Bans, who, now); ok {
		say(vom.RuleBan, true, "%s", credential.BanError(ban).Msg)
	} else {
		say(vom.RuleBan, false, "not banned from the grid")
	}
	if r, ok := credential.Revoked(b.Revocations, who); ok {
		say(vom.RuleRevocation, true, "the certificates of %s issued until %s are revoked: %s", a, clock(r.Before), r.Reason)
	} else {
		say(vom.RuleRevocation, false, "nothing of %s is revoked", a)
	}
	return append(out, s.policies(ctx, a, who)...)
}

// policies says what this machine's owner and the VO say, as far as they were
// asked: the first that refuses is the last. Whether the VO is served was said.
func (s *Service) policies(ctx context.Context, a xos.Account, who vom.Identity) (out []vom.Verdict) {
	d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node)
	said := d.Rules
	if len(said) == 0 {
		said = []string{string(vom.RuleVOPolicy)}
	}
	if said[0] == string(vom.RuleServed) {
		return nil
	}
	if said[0] != string(vom.RuleSiteBan) {
		out = append(out, vom.Verdict{Rule: vom.RuleSiteBan, Text: fmt.Sprintf("%s is not banned from %s by its owner", a, s.cfg.Node)})
		if !strings.HasPrefix(said[0], "site/") {
			out = append(out, vom.Verdict{Rule: vom.RuleSitePolicy, Text: fmt.Sprintf("the owner of %s does not forbid it", s.cfg.Node)})
		}
	}
	for _, rule := range said {
		v := vom.Verdict{Rule: vom.Rule(rule), Refused: !d.Allow, Text: d.Reason}
		if d.Policy != "" {
			v.Inside = "policies " + d.Policy
		}
		out = append(out, v)
	}
	return out
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// refusing gives the first verdict that refuses; false if none does.
func refusing(all []vom.Verdict) (vom.Verdict, bool) {
	for _, v := range all {
		if v.Refused {
			return v, true
		}
	}
	return vom.Verdict{}, false
}

// shown gives verdicts as a caller may see them: only root what is inside.
func shown(all []vom.Verdict, root bool) (out []*xosv1.Rule) {
	for _, v := range all {
		r := &xosv1.Rule{Name: string(v.Rule), Refused: v.Refused, Text: v.Text}
		if root && v.Inside != "" {
			r.Text += " [" + v.Inside + "]"
		}
		if v.Refused {
			r.Change = v.Rule.Change()
		}
		out = append(out, r)
	}
	return out
}
