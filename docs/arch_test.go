package docs_test

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// arrow is an edge of the diagram between two top-level folders.
type arrow struct{ from, to string }

// diagram reads the arrows of the first mermaid block of architecture.md. The
// label of an arrow names the only packages below its head that may be
// imported; without one all may.
func diagram(t *testing.T) map[arrow][]string {
	t.Helper()
	_, block, ok := strings.Cut(section(t, "docs/architecture.md", "## Rooms and arrows"), "```mermaid\n")
	block, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("architecture.md: no mermaid block below \"## Rooms and arrows\"")
	}
	form := regexp.MustCompile(`^(\w+) -->(?:\|([\w, /]+)\|)? (\w+)$`)
	arrows := map[arrow][]string{}
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, "--") {
			continue
		}
		m := form.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("architecture.md: %q: expected \"a --> b\" or \"a -->|package, package| b\"", line)
		}
		arrows[arrow{m[1], m[3]}] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	return arrows
}

// split parts an import path of ours into its top-level folder and the rest.
func split(importPath string) (top, below string, ours bool) {
	rel, ours := strings.CutPrefix(importPath, module+"/")
	top, below, _ = strings.Cut(rel, "/")
	return top, below, ours
}

// TestArrows compares the diagram with the imports, both ways: an import
// without an arrow fails, and so does an arrow without an import. Tests may
// use arrows, but they do not justify one.
func TestArrows(t *testing.T) {
	arrows := diagram(t)
	used := map[arrow]bool{}
	for _, p := range packages(t) {
		for _, imports := range []map[string]bool{p.imports, p.testImports} {
			for im := range imports {
				top, below, ours := split(im)
				from, _, _ := strings.Cut(p.dir, "/")
				if !ours || top == from {
					continue
				}
				only, ok := arrows[arrow{from, top}]
				if !ok {
					t.Errorf("%s imports %s, but the diagram in docs/architecture.md has no arrow %s --> %s", p.dir, im, from, top)
					continue
				}
				if len(only) > 0 && !slices.Contains(only, below) {
					t.Errorf("%s imports %s, but the arrow %s --> %s is for %v only", p.dir, im, from, top, only)
				}
				if p.imports[im] {
					used[arrow{from, top}] = true
				}
			}
		}
	}
	for a := range arrows {
		if !used[a] {
			t.Errorf("the arrow %s --> %s of docs/architecture.md is not in the code", a.from, a.to)
		}
	}
}

// TestRooms compares the list of rooms with the packages that exist.
func TestRooms(t *testing.T) {
	listed := map[string]bool{}
	for _, r := range rows(section(t, "docs/architecture.md", "## Rooms and arrows")) {
		listed[r[0]] = true
	}
	for _, p := range packages(t) {
		if p.name == "" {
			continue
		}
		if !listed[p.dir] {
			t.Errorf("package %s has no row in the table of rooms of docs/architecture.md", p.dir)
		}
		delete(listed, p.dir)
	}
	for dir := range listed {
		t.Errorf("docs/architecture.md lists the room %s, which holds no Go code", dir)
	}
}

// TestHeavyDependencies holds each heavy module, and each edge to the outside,
// in the rooms that the table names, tests included. The linter says the same
// at the keyboard, so it must know the same modules.
func TestHeavyDependencies(t *testing.T) {
	lint := read(t, ".golangci.yml")
	table := rows(section(t, "docs/architecture.md", "## Heavy dependencies"))
	if len(table) < 4 {
		t.Fatalf("found %d rows below \"## Heavy dependencies\", expected one for each of libp2p, cilium/ebpf, Gorgonia and Badger", len(table))
	}
	all := packages(t)
	for _, r := range table {
		heavy, room := r[0], r[1]
		if !strings.Contains(lint, "- pkg: "+heavy+"\n") || !strings.Contains(lint, `"!**/`+room+`/**"`) {
			t.Errorf(".golangci.yml: no depguard rule keeps %s in %s, as docs/architecture.md says", heavy, room)
		}
		for _, p := range all {
			if p.dir == room || strings.HasPrefix(p.dir, room+"/") {
				continue
			}
			for _, imports := range []map[string]bool{p.imports, p.testImports} {
				for im := range imports {
					if im == heavy || strings.HasPrefix(im, heavy+"/") {
						t.Errorf("%s imports %s: only %s may", p.dir, im, room)
					}
				}
			}
		}
	}
}

// TestEdges compares the table of edges with who imports them, both ways. Tests
// choose as they like.
func TestEdges(t *testing.T) {
	table := rows(section(t, "docs/architecture.md", "## Edges"))
	if len(table) == 0 {
		t.Fatal("docs/architecture.md: no rows below \"## Edges\"")
	}
	all := packages(t)
	for _, r := range table {
		var by []string
		for _, p := range all {
			if p.imports[module+"/"+r[0]] {
				by = append(by, p.dir)
			}
		}
		said := strings.Split(r[1], "`, `")
		if !slices.Equal(by, said) {
			t.Errorf("the edge %s is chosen by %v; docs/architecture.md says %v (in the order of their names)", r[0], by, said)
		}
	}
}

// TestPackageDocs wants every package to say its duties.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		want := "Package " + p.name + " "
		if p.name == "main" {
			want = "Command " + path.Base(p.dir) + " "
		}
		if p.name != "" && !strings.HasPrefix(p.doc, want) {
			t.Errorf("package %s: its doc comment must start with %q and say its duties; found %.40q", p.dir, want, p.doc)
		}
	}
}
