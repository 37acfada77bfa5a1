package isolation

import (
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/xtreemos/xos"
)

// at is a mistake that was found after the text was read, with the key that it
// is in.
func at(text []byte, key, format string, args ...any) error {
	err := xos.Errorf(xos.Invalid, format, args...)
	if line := lineOf(text, key); line > 0 {
		return xos.Errorf(xos.Invalid, "line %d: %s: %s", line, key, err.Msg)
	}
	return xos.Errorf(xos.Invalid, "%s: %s", key, err.Msg)
}

// lineOf gives the line of a key, "share.network", or of the first below it; 0
// if it is not there in these words (an inline table has it).
func lineOf(text []byte, key string) int {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var words []string
		line := 0
		for it := e.Key(); it.Next(); {
			n := it.Node()
			words = append(words, string(n.Data))
			if line == 0 {
				line = p.Shape(n.Raw).Start.Line
			}
		}
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = words
		case unstable.KeyValue:
			words = append(append([]string{}, table...), words...)
		default:
			continue
		}
		if at := strings.Join(words, "."); at == key || strings.HasPrefix(at, key+".") {
			return line
		}
	}
	return 0
}
