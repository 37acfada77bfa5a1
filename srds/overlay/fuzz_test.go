package overlay

import "testing"

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"query":{"vo":"physics","ranges":[{"attribute":"cpus","min":2}]},"number":1,"token":"000102030405060708090a0b"}`))
	f.Add([]byte(`{"query":{"vo":"physics"},"token":"../../etc/passwd........"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := decode(data)
		if err != nil {
			return
		}
		if len(q.Query.Ranges) > maxRanges || len(q.Token) != 24 {
			t.Errorf("accepted %+v", q)
		}
	})
}
