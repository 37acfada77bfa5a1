package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestPeopleOfTheirOwn: the tests of test/e2e share one grid, so each has people
// of its own: a name that two add is found here rather than in a run of ten
// minutes.
func TestPeopleOfTheirOwn(t *testing.T) {
	files := token.NewFileSet()
	packages, err := parser.ParseDir(files, "../e2e", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]token.Position{}
	for _, p := range packages {
		for _, file := range p.Files {
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "newMember" || len(call.Args) != 5 {
					return true
				}
				name, ok := call.Args[3].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: a person whose name is not written here", files.Position(call.Pos()))
					return true
				}
				who, err := strconv.Unquote(name.Value)
				if err != nil {
					t.Fatal(err)
				}
				if at, taken := first[who]; taken {
					t.Errorf("%s: %s is another test's, of %s", files.Position(call.Pos()), who, at)
				}
				first[who] = files.Position(call.Pos())
				return true
			})
		}
	}
	if len(first) < 10 {
		t.Errorf("only %d people were found", len(first))
	}
}
