package client

// span is the bytes [from, to) of a chunk.
type span struct{ from, to int }

// spans is a sorted set of bytes: its spans neither touch nor overlap.
type spans []span

// add gives the set with [from, to) in it.
func (s spans) add(from, to int) spans {
	if from >= to {
		return s
	}
	if n := len(s); n > 0 && s[n-1].to == from { // appending is the common case
		s[n-1].to = to
		return s
	}
	out := make(spans, 0, len(s)+1)
	i := 0
	for ; i < len(s) && s[i].to < from; i++ {
		out = append(out, s[i])
	}
	for ; i < len(s) && s[i].from <= to; i++ {
		from, to = min(from, s[i].from), max(to, s[i].to)
	}
	out = append(out, span{from, to})
	return append(out, s[i:]...)
}

// remove gives the set without [from, to).
func (s spans) remove(from, to int) spans {
	if from >= to || len(s) == 0 {
		return s
	}
	out := make(spans, 0, len(s)+1)
	for _, x := range s {
		if x.from < from {
			out = append(out, span{x.from, min(x.to, from)})
		}
		if x.to > to {
			out = append(out, span{max(x.from, to), x.to})
		}
	}
	return out
}

// union gives the set with all of t in it.
func (s spans) union(t spans) spans {
	for _, x := range t {
		s = s.add(x.from, x.to)
	}
	return s
}

// within gives what of the set lies in [from, to).
func (s spans) within(from, to int) spans {
	var out spans
	for _, x := range s {
		if a, b := max(x.from, from), min(x.to, to); a < b {
			out = append(out, span{a, b})
		}
	}
	return out
}

// disjoint reports whether nothing of the set lies in [from, to).
func (s spans) disjoint(from, to int) bool { return len(s.within(from, to)) == 0 }

// end is the first byte after the set; 0 for the empty one.
func (s spans) end() int {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].to
}

// is reports whether the set is exactly [from, to).
func (s spans) is(from, to int) bool {
	return len(s) == 1 && s[0] == span{from, to}
}
