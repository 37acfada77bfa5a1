package audit

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// MessageID marks the entries of the log in the journal: journalctl
// MESSAGE_ID=...
const MessageID = "6f3a5bd2c0f94d5f9b0f3e8a7c1d2e46"

// waiting is how many entries may wait for the journal.
const waiting = 4096

// Journal tells the system's journal of each entry, with its number and hash,
// so that other machines may collect them and that a log of which the end was
// cut off, or which was written anew, does not agree with it. It never makes a
// decision wait: where the journal is too slow entries are left out there, and
// counted.
type Journal struct {
	queue chan told
	lost  atomic.Uint64
	send  Send
	log   *slog.Logger
}

type told struct {
	Entry
	hash string
}

// Send is how an entry comes into a journal: go-systemd's journal.Send.
type Send func(message string, p journal.Priority, fields map[string]string) error

// NewJournal makes a journal; nothing is sent before Run. A nil Journal takes
// everything and tells nobody.
func NewJournal(send Send, log *slog.Logger) *Journal {
	return &Journal{queue: make(chan told, waiting), send: send, log: log}
}

// Lost is how many entries were left out.
func (j *Journal) Lost() uint64 { return j.lost.Load() }

func (j *Journal) tell(e Entry, hash string) {
	if j == nil {
		return
	}
	select {
	case j.queue <- told{e, hash}:
	default:
		j.lost.Add(1)
	}
}

// Run sends until ctx ends, and then what is still there.
func (j *Journal) Run(ctx context.Context) error {
	if j == nil {
		return nil
	}
	var said uint64
	var at time.Time
	say := func() {
		if lost := j.lost.Load(); lost > said {
			j.log.Warn("the journal did not take all of the audit log", "left out", lost-said)
			said, at = lost, time.Now()
		}
	}
	defer say()
	for {
		select {
		case e := <-j.queue:
			j.pass(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-j.queue:
					j.pass(e)
				default:
					return nil
				}
			}
		}
		if time.Since(at) > time.Minute {
			say()
		}
	}
}

func (j *Journal) pass(e told) {
	p, verdict := journal.PriInfo, "allowed"
	if !e.Allowed {
		p, verdict = journal.PriNotice, "refused"
	}
	user, vo := e.About()
	vars := map[string]string{
		"MESSAGE_ID": MessageID, "XOS_AUDIT_SEQ": strconv.FormatUint(e.Seq, 10), "XOS_AUDIT_HASH": e.hash, "XOS_AUDIT_VERDICT": verdict,
	}
	for name, value := range map[string]string{
		"ACTOR": e.Actor, "ACTION": e.Action, "SUBJECT": e.Subject, "VO": string(vo), "USER": string(user), "REASON": e.Reason, "REQUEST": e.Request,
	} {
		if value != "" {
			vars["XOS_AUDIT_"+name] = value
		}
	}
	message := "audit: " + e.Actor + ": " + e.Action
	if e.Subject != "" {
		message += " " + e.Subject
	}
	message += " " + verdict
	if e.Reason != "" {
		message += ": " + e.Reason
	}
	if err := j.send(message, p, vars); err != nil {
		j.lost.Add(1)
	}
}
