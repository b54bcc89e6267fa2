// Package docs_test keeps the documents true: it reads them and the tree, and
// fails where the two say different things. It parses files itself instead of
// asking the go command, so that a cached result never outlives a change.
package docs_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = ".."
	module = "github.com/hedgerow-mesh/hedgerow"
)

// pkg is one folder with Go files. Imports are import paths.
type pkg struct {
	dir         string // from the root, with slashes
	name        string // "" when the folder holds tests only
	doc         string
	imports     map[string]bool
	testImports map[string]bool
}

// tree returns the paths of all files of the project, from the root. Hidden
// folders, testdata and what is built are left out.
func tree(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		switch {
		case !d.IsDir():
			files = append(files, filepath.ToSlash(rel))
		case rel != "." && strings.HasPrefix(d.Name(), "."), d.Name() == "testdata", rel == "bin":
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// packages parses the heads of all Go files, whatever their build tags.
func packages(t *testing.T) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	for _, f := range tree(t) {
		if path.Ext(f) != ".go" {
			continue
		}
		dir := path.Dir(f)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir, imports: map[string]bool{}, testImports: map[string]bool{}}
		}
		byDir[dir].add(t, f)
	}
	if len(byDir) < 4 {
		t.Fatalf("found only %d packages below %s: is this the whole tree?", len(byDir), root)
	}
	return slices.SortedFunc(maps.Values(byDir), func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
}

func (p *pkg) add(t *testing.T, file string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	imports := p.testImports
	if !strings.HasSuffix(file, "_test.go") {
		imports = p.imports
		p.name = f.Name.Name
		if f.Doc != nil {
			p.doc += f.Doc.Text()
		}
	}
	for _, im := range f.Imports {
		ip, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		imports[ip] = true
	}
}

// read returns a file of the project, named from the root.
func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section returns the text of a Markdown file below a heading, up to the next
// heading of its level or above.
func section(t *testing.T, file, heading string) string {
	t.Helper()
	level := strings.Count(strings.SplitN(heading, " ", 2)[0], "#")
	_, rest, ok := strings.Cut("\n"+read(t, file), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s: no heading %q", file, heading)
	}
	end := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(level) + `} `).FindStringIndex(rest)
	if end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

// rows returns the cells of a Markdown table's body, stripped of spaces and
// backquotes.
func rows(table string) [][]string {
	var out [][]string
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue // the table's head, its rule, or prose
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		out = append(out, cells)
	}
	return out
}
