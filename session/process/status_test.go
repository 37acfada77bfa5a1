package process

import "testing"

// TestStatus: what says nothing of a process's uids is not that it has none.
func TestStatus(t *testing.T) {
	const uids = "Uid:\t1\t2\t3\t4\n"
	for _, tc := range []struct {
		text      string
		alive, ok bool
	}{
		{"Name:\tx\nState:\tS (sleeping)\n" + uids + "Threads:\t1\n", true, true},
		{"Name:\tState:\nState:\tZ (zombie)\n" + uids + "Threads:\t1\n", false, true},
		{"Name:\tx\nState:\tZ (zombie)\n" + uids + "Threads:\t2\n", true, true},
		{"Name:\tx\nState:\tX (dead)\n" + uids + "Threads:\t0\n", false, true},
		{"", false, false},
		{"State:\tS (sleeping)\nThreads:\t1\n", false, false},
		{"State:\tS (sleeping)\n" + uids, false, false},
		{uids + "Threads:\t1\n", false, false},
		{"State:\tS\nUid:\t1\t2\t3\nThreads:\t1\n", false, false},
		{"State:\tS\nUid:\t1\t2\t3\t-4\nThreads:\t1\n", false, false},
	} {
		got, alive, err := parseStatus(tc.text)
		if alive != tc.alive || (err == nil) != tc.ok || tc.ok && got != [4]uint32{1, 2, 3, 4} {
			t.Errorf("%q: %v %v %v", tc.text, got, alive, err)
		}
	}
}
