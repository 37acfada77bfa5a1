package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// source is what a program's source says of its use.
type source struct {
	about string // its package comment
	flags []flagDef
	keys  []key
}

// flagDef is one flag.
type flagDef struct{ name, value, usage string }

// key is one key of the configuration.
type key struct {
	field, name, kind string
	value             string // default, as TOML; "" where the meaning says it
	meaning           string // "" if the key before has it too
}

// read parses the program in tree/cmd/name; config names the struct type that
// its configuration is read into, or is "".
func read(tree, name, config string) (source, error) {
	var s source
	paths, err := filepath.Glob(filepath.Join(tree, "cmd", name, "*.go"))
	if err != nil {
		return s, err
	}
	defaults := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return s, err
		}
		if f.Doc != nil {
			s.about = about(f.Doc.Text())
		}
		if err := s.scan(f, values{tree, f}, config, defaults); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(s.keys) == 0 && config != "" || s.about == "" {
		return s, fmt.Errorf("cmd/%s has no package comment or no type %s", name, config)
	}
	for i := range s.keys {
		s.keys[i].value = defaults[s.keys[i].field]
		s.keys[i].meaning = s.inKeys(s.keys[i].meaning)
	}
	return s, nil
}

// scan finds flags, the type of the configuration, and the literal of that type
// in the function defaults.
func (s *source) scan(f *ast.File, v values, config string, defaults map[string]string) (err error) {
	ast.Inspect(f, func(n ast.Node) bool {
		if err != nil {
			return false
		}
		switch n := n.(type) {
		case *ast.CallExpr:
			var d flagDef
			if d, err = flagOf(n); d.name != "" {
				s.flags = append(s.flags, d)
			}
		case *ast.TypeSpec:
			if t, ok := n.Type.(*ast.StructType); ok && n.Name.Name == config {
				s.keys, err = keysOf(t)
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "defaults" {
				err = v.defaults(n, config, defaults)
			}
		}
		return true
	})
	return err
}

// flagOf reads flag.String("name", "default", "usage") and its like.
func flagOf(call *ast.CallExpr) (flagDef, error) {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if pkg, isIdent := callee(fun, ok); !isIdent || pkg != "flag" || len(call.Args) != 3 {
		return flagDef{}, nil
	}
	var d flagDef
	for i, to := range []*string{&d.name, &d.value, &d.usage} {
		switch a := call.Args[i].(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(a.Value)
			if err != nil {
				return d, err
			}
			*to = text
		case *ast.Ident: // false: a switch
		default:
			return d, fmt.Errorf("flag %s has no literal there", d.name)
		}
	}
	return d, nil
}

func callee(fun *ast.SelectorExpr, ok bool) (string, bool) {
	if !ok {
		return "", false
	}
	x, ok := fun.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	return x.Name, true
}

func keysOf(t *ast.StructType) ([]key, error) {
	var keys []key
	for _, f := range t.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			return nil, fmt.Errorf("a field of the configuration has no tag")
		}
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			return nil, err
		}
		k := key{field: f.Names[0].Name, name: reflect.StructTag(tag).Get("toml"), meaning: strings.TrimSpace(f.Doc.Text())}
		if k.kind = kindOf(f.Type); k.kind == "" || k.name == "" {
			return nil, fmt.Errorf("field %s has no key, or a type without a word for it", k.field)
		}
		if len(keys) == 0 && k.meaning == "" {
			return nil, fmt.Errorf("field %s has no comment", k.field)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// kindOf is how a type is written in TOML.
func kindOf(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return map[string]string{"string": "string", "bool": "boolean", "duration": "duration", "int64": "integer", "uint32": "integer"}[t.Name]
	case *ast.ArrayType:
		return "list of strings"
	case *ast.MapType:
		return "table of integers"
	}
	return ""
}

// about is a package comment without "Command ".
func about(text string) string {
	return strings.TrimPrefix(strings.TrimSpace(text), "Command ")
}

var word = regexp.MustCompile(`\b[A-Z][A-Za-z]*\b`)

// inKeys has the names of fields replaced by those of keys, as they are in the
// file.
func (s *source) inKeys(text string) string {
	return word.ReplaceAllStringFunc(text, func(w string) string {
		for _, k := range s.keys {
			if k.field == w {
				return "**" + k.name + "**"
			}
		}
		return w
	})
}

// flagList is the flags as Markdown.
func (s *source) flagList() string {
	var b strings.Builder
	for _, f := range append(s.flags, flagDef{name: "help", usage: "print the flags and end"}) {
		b.WriteString("**-" + f.name + "**")
		if f.value != "" {
			b.WriteString(" *FILE*")
		}
		b.WriteString("\n: " + f.usage)
		if f.value != "" {
			b.WriteString("; default *" + f.value + "*")
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// keyList is the keys as Markdown; keys that are explained together stand
// together.
func (s *source) keyList() string {
	var b strings.Builder
	for i := 0; i < len(s.keys); {
		var names []string
		meaning := s.keys[i].meaning
		for ok := true; ok; ok = i < len(s.keys) && s.keys[i].meaning == "" {
			k := s.keys[i]
			value := ""
			if k.value != "" {
				value = ", `" + k.value + "`"
			}
			names = append(names, "**"+k.name+"** ("+k.kind+value+")")
			i++
		}
		fmt.Fprintf(&b, "%s\n: %s\n\n", strings.Join(names, ", "), strings.ReplaceAll(meaning, "\n", " "))
	}
	return b.String()
}
