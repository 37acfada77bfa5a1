package vom

import (
	"errors"
	"strings"

	"github.com/xtreemos/xos"
)

// Rule names what refused, or let pass, for explanations.
type Rule string

// The rules of a login, in the order in which they are asked.
const (
	RuleServed      Rule = "site/vos"              // the machine's owner lists the VO
	RuleForm        Rule = "certificate/form"      // it is a grid user's certificate
	RuleAccount     Rule = "certificate/account"   // it is for the account that logs in
	RuleAuthority   Rule = "certificate/authority" // this grid signed it
	RuleValidity    Rule = "certificate/validity"  // it is valid now
	RuleNews        Rule = "trust/news"            // the machine's news are fresh enough
	RuleBan         Rule = "grid/ban"
	RuleRevocation  Rule = "grid/revocation"
	RuleSiteBan     Rule = "site/banned"
	RuleSitePolicy  Rule = "site/policy"
	RuleVOPolicy    Rule = "vo/policy"
	RulePassword    Rule = "password"
	RuleUID         Rule = "session/uid"
	RuleEvidence    Rule = "session/evidence" // something was shown at all
	RuleMember      Rule = "vo/member"
	RuleCertificate Rule = "certificate/issued" // the core's records know it
)

// change says what lifts a rule's refusal.
var change = map[Rule]string{
	RuleServed:      "the machine's owner adds the VO to vos in /etc/xos/node.toml; or use another machine",
	RuleForm:        "get a certificate of this grid: xos login USER@VO",
	RuleAccount:     "log in as the account that the certificate names, or get one for this account: xos login USER@VO",
	RuleAuthority:   "get a certificate of this grid: xos login USER@VO",
	RuleValidity:    "get a new certificate: xos login USER@VO; if it is new, one of the two clocks is wrong",
	RuleNews:        "the machine must reach xos-core again: xos status; or the VO allows a longer time: xos vo set-offline",
	RuleBan:         "an administrator of the core lifts it: xos ban remove",
	RuleRevocation:  "get a new certificate: xos login USER@VO; who is no member must be added first: xos vo member add VO USER",
	RuleSiteBan:     "the machine's owner takes the name out of banned in /etc/xos/node.toml",
	RuleSitePolicy:  "the machine's owner changes the policy that /etc/xos/node.toml names",
	RuleVOPolicy:    "the VO's administrator changes its policy: xos vo set-policy VO FILE",
	RulePassword:    "give the grid password, or have a new one set: xos user token USER",
	RuleUID:         "log in again; where there is no room for another uid, root: xos uid sweep",
	RuleEvidence:    "log in with a certificate: xos login USER@VO, then ssh",
	RuleMember:      "an administrator of the core adds the member: xos vo member add VO USER",
	RuleCertificate: "get a new certificate: xos login USER@VO",
}

// Change says what would change a refusal by this rule; "" if that is not
// known. A single policy's name, "vo/physics/policy0", is as good as its set's.
func (r Rule) Change() string {
	text, ok := change[r]
	switch {
	case ok:
	case strings.HasPrefix(string(r), "vo/"):
		text = change[RuleVOPolicy]
	case strings.HasPrefix(string(r), "site/"):
		text = change[RuleSitePolicy]
	}
	return text
}

// Verdict is what one rule said.
type Verdict struct {
	Rule    Rule   `json:"rule"`
	Refused bool   `json:"refused,omitempty"`
	Text    string `json:"text"` // for whom it concerns
	// Inside is what administrators are told besides: nothing that a user could
	// not do without, who must learn no more of others' affairs than she has to.
	Inside string `json:"inside,omitempty"`
}

// marked carries the rule of an error, unseen in its text.
type marked struct {
	rule Rule
	err  error
}

func (m marked) Error() string { return "" }
func (m marked) Unwrap() error { return m.err }

// By says which rule an error comes from. Its text stays.
func By(rule Rule, err *xos.Error) *xos.Error {
	out := *err
	if out.Err != nil {
		// What was printed from it stays in the message.
		if cause := out.Err.Error(); cause != "" {
			out.Msg += ": " + cause
		}
	}
	out.Err = marked{rule, out.Err}
	return &out
}

// RuleOf gives the rule that an error comes from; "" if it does not say.
func RuleOf(err error) Rule {
	var m marked
	if errors.As(err, &m) {
		return m.rule
	}
	return ""
}
