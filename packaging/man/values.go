package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const module = "github.com/xtreemos/xos"

// values turns literals of a file into TOML. It knows what configurations'
// defaults are written with, and fails on anything else.
type values struct {
	tree string
	file *ast.File
}

// defaults reads the literals "config{Field: value, …}" in a function that have
// fields.
func (v values) defaults(f *ast.FuncDecl, config string, into map[string]string) (err error) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if lit, ok := n.(*ast.CompositeLit); ok && err == nil {
			if t, ok := lit.Type.(*ast.Ident); ok && t.Name == config {
				err = v.fields(lit, into)
			}
		}
		return err == nil
	})
	return err
}

// fields reads a literal "config{Field: value, …}". A value that is computed
// is left out: the field's comment says what it is.
func (v values) fields(lit *ast.CompositeLit, into map[string]string) error {
	for _, e := range lit.Elts {
		pair, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return fmt.Errorf("the defaults have no names")
		}
		if _, computed := pair.Value.(*ast.Ident); computed {
			continue
		}
		name := pair.Key.(*ast.Ident).Name
		text, err := v.value(pair.Value)
		if err != nil {
			return fmt.Errorf("the default of %s: %w", name, err)
		}
		into[name] = text
	}
	return nil
}

func (v values) value(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Value, nil
	case *ast.SelectorExpr:
		return v.constant(e)
	case *ast.CompositeLit:
		if t, ok := e.Type.(*ast.Ident); ok && t.Name == "duration" && len(e.Elts) == 1 {
			d, err := span(e.Elts[0])
			return strconv.Quote(short(d)), err
		}
		var items []string
		for _, elt := range e.Elts {
			item, err := v.value(elt)
			if err != nil {
				return "", err
			}
			items = append(items, item)
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	}
	return "", fmt.Errorf("no way to write a %T is known", e)
}

// constant finds pkg.Name where pkg is one of the module's.
func (v values) constant(e *ast.SelectorExpr) (string, error) {
	pkg, _ := callee(e, true)
	for _, imp := range v.file.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return "", err
		}
		rest, ours := strings.CutPrefix(path, module+"/")
		if !ours || filepath.Base(path) != pkg {
			continue
		}
		files, err := filepath.Glob(filepath.Join(v.tree, rest, "*.go"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				return "", err
			}
			if text := literal(f, e.Sel.Name); text != "" {
				return text, nil
			}
		}
	}
	return "", fmt.Errorf("no constant %s.%s was found", pkg, e.Sel.Name)
}

func literal(f *ast.File, name string) (text string) {
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, id := range spec.Names {
			if id.Name == name && i < len(spec.Values) {
				if lit, ok := spec.Values[i].(*ast.BasicLit); ok {
					text = lit.Value
				}
			}
		}
		return true
	})
	return text
}

var units = map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}

// span reads "12 * time.Hour" or "time.Minute".
func span(e ast.Expr) (time.Duration, error) {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		if d, ok := units[e.Sel.Name]; ok {
			return d, nil
		}
	case *ast.BinaryExpr:
		n, ok := e.X.(*ast.BasicLit)
		if !ok || e.Op != token.MUL {
			break
		}
		d, err := span(e.Y)
		if err != nil {
			return 0, err
		}
		times, err := strconv.ParseInt(n.Value, 10, 64)
		return d * time.Duration(times), err
	}
	return 0, fmt.Errorf("no way to read this duration is known")
}

// short writes a duration without its zeros: "12h".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
