package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// literals returns the string constants of the command's own code: among them
// are the names of all its subcommands and flags.
func literals(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, f := range tree(t) {
		if path.Dir(f) != "node/cmd/hedgerow" || path.Ext(f) != ".go" || strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, f), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil {
					out[s] = true
					verb, _, _ := strings.Cut(s, " ") // "explain ID" is how cobra is told of explain
					out[verb] = true
				}
			}
			return true
		})
	}
	return out
}

// TestCommands wants every hedgerow command in a code block of a document to
// exist, with the flags that it is given.
func TestCommands(t *testing.T) {
	known := literals(t)
	call := regexp.MustCompile(`(?m)^(?:\$ |sudo |env \S+ )*(?:\./|bin/|go run \./node/cmd/)?hedgerow +([a-z-]+)([^#\n|>]*)`)
	flag := regexp.MustCompile(`(?:^| )--?([a-z][a-z-]*)`)
	for _, doc := range tree(t) {
		if path.Ext(doc) != ".md" {
			continue
		}
		for _, block := range fence.FindAllString(read(t, doc), -1) {
			for _, m := range call.FindAllStringSubmatch(block, -1) {
				if !known[m[1]] && m[1] != "help" && m[1] != "completion" {
					t.Errorf("%s: %q: there is no command %s", doc, m[0], m[1])
				}
				for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
					if !known[f[1]] && f[1] != "help" {
						t.Errorf("%s: %q: there is no flag --%s", doc, m[0], f[1])
					}
				}
			}
		}
	}
}

// TestTestCommand wants the README to name exactly one test command, since that
// is the one that CI runs.
func TestTestCommand(t *testing.T) {
	lines := regexp.MustCompile(`(?m)^go test .*\./\.\.\.`).FindAllString(read(t, "README.md"), -1)
	if len(lines) != 1 {
		t.Errorf("README.md: found the test commands %q, expected one", lines)
	}
}
