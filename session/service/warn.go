package service

import (
	"fmt"
	"time"
)

// warnings are how long before the end of her certificate a user is told, in
// her terminals, the last one that it has come.
var warnings = [...]time.Duration{15 * time.Minute, 5 * time.Minute, 0}

// passed is how many warnings' times are past for an end.
func (s *Service) passed(until time.Time) (n int) {
	for _, before := range warnings {
		if !until.IsZero() && !s.Now().Before(until.Add(-before)) {
			n++
		}
	}
	return n
}

// warn tells those whose sessions will lose what they have.
func (s *Service) warn() {
	type notice struct {
		p     *person
		until time.Time
	}
	var out []notice
	s.mu.Lock()
	for a, p := range s.people {
		if p.terms.Until.IsZero() || s.newest(a) == nil {
			continue
		}
		if n := s.passed(p.terms.Until); n > p.warned {
			p.warned = n
			out = append(out, notice{p, p.terms.Until})
		}
	}
	now := s.Now()
	s.mu.Unlock()
	for _, n := range out {
		when := "has ended"
		if left := n.until.Sub(now); left > 0 {
			when = fmt.Sprintf("ends at %s, in %v", n.until.Local().Format("15:04"), max(left.Round(time.Minute), time.Minute))
		}
		s.tell(n.p, fmt.Sprintf("Your certificate %s, and with it your home and jobs here.\r\n"+
			"To go on: xos login %s where you came from, then log in here once more; or, with a forwarded ssh-agent, xos delegate.", when, n.p.account))
		s.Log.Info("told of the end of a certificate", "account", n.p.account, "until", n.until)
	}
}
