package guard

import (
	"time"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// places has the places in which packets and opened files are counted. Who has none, since
// another has it, is counted among all other figures. The map outlives this process.
type places struct {
	m *ebpf.Map
	// left is when a place was given up. A packet that found it before is soon
	// counted: until then nobody else has it.
	left map[uint32]time.Time
}

// manyPlaces is XOS_PLACES of bpf/account.h, placeOfUser XOS_PLACE_OF_USER.
const (
	manyPlaces  = 4096
	placeOfUser = 1 << 63
	settling    = time.Second
)

// placeOf gives the number of whom figures are kept, and where its place is.
func placeOf(who bpf.AccountXosWho) (number uint64, at uint32) {
	number = who.Id
	if who.Kind == uint32(bpf.AccountXosKindXOS_OF_USER) {
		number |= placeOfUser
	}
	return number, uint32(number % manyPlaces)
}

// holder says whose a place is, 0 for nobody's, and what was counted in it.
func (p *places) holder(at uint32) (number uint64, sum bpf.AccountXosPlace, err error) {
	var each []bpf.AccountXosPlace
	if err := p.m.Lookup(at, &each); err != nil {
		return 0, sum, xos.Errorf(xos.Unavailable, "reading place %d of the figures: %w", at, err)
	}
	for _, of := range each {
		number |= of.Number // of all processors alike
		sum.NetIn += of.NetIn
		sum.NetOut += of.NetOut
		sum.Opens += of.Opens
	}
	return number, sum, nil
}

// give gives one its place if nobody has it, nor had it just now.
func (p *places) give(who bpf.AccountXosWho) error {
	number, at := placeOf(who)
	has, _, err := p.holder(at)
	if err != nil || has != 0 || time.Since(p.left[at]) < settling {
		return err
	}
	return p.put(at, number)
}

// empty begins anew to count in one's place.
func (p *places) empty(who bpf.AccountXosWho) error {
	number, at := placeOf(who)
	if has, _, err := p.holder(at); err != nil || has != number {
		return err
	}
	return p.put(at, number)
}

// take takes away one's place, with what was counted in it.
func (p *places) take(who bpf.AccountXosWho) error {
	number, at := placeOf(who)
	if has, _, err := p.holder(at); err != nil || has != number {
		return err
	}
	p.left[at] = time.Now()
	return p.put(at, 0)
}

func (p *places) put(at uint32, number uint64) error {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return xos.Errorf(xos.Internal, "counting processors: %w", err)
	}
	each := make([]bpf.AccountXosPlace, n)
	for i := range each {
		each[i].Number = number
	}
	if err := p.m.Put(at, each); err != nil {
		return xos.Errorf(xos.Unavailable, "writing place %d of the figures: %w", at, err)
	}
	return nil
}

// of gives what was counted for one in its place.
func (p *places) of(who bpf.AccountXosWho) (sum bpf.AccountXosPlace, err error) {
	number, at := placeOf(who)
	has, sum, err := p.holder(at)
	if has != number {
		return bpf.AccountXosPlace{}, err
	}
	return sum, err
}

// settle gives places to all who are known, and takes them from those who are not:
// a predecessor may have died between.
func (p *places) settle(known map[owner]bpf.AccountXosWho) error {
	numbers := map[uint64]bool{}
	for _, who := range known {
		number, _ := placeOf(who)
		numbers[number] = true
	}
	for at := range uint32(manyPlaces) {
		has, _, err := p.holder(at)
		if err != nil {
			return err
		}
		if has != 0 && !numbers[has] {
			p.left[at] = time.Now()
			if err := p.put(at, 0); err != nil {
				return err
			}
		}
	}
	for _, who := range known {
		if err := p.give(who); err != nil {
			return err
		}
	}
	return nil
}
