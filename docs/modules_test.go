package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// direct returns the modules that go.mod requires for ourselves, and its tools.
func direct(t *testing.T) map[string]bool {
	t.Helper()
	mods := map[string]bool{}
	for line := range strings.Lines(read(t, "go.mod")) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "require ")
		m := regexp.MustCompile(`^(\S+\.\S+/\S+) v\S+$`).FindStringSubmatch(line)
		if m != nil {
			mods[m[1]] = true
		}
	}
	if len(mods) < 10 {
		t.Fatalf("go.mod: found %d direct dependencies: the form of go.mod has changed", len(mods))
	}
	return mods
}

// TestGoMod refuses what would make a build depend on somebody's machine.
func TestGoMod(t *testing.T) {
	for i, line := range strings.Split(read(t, "go.mod"), "\n") {
		if regexp.MustCompile(`^\s*(replace|exclude)\b|=>`).MatchString(line) {
			t.Errorf("go.mod:%d: %q: a replaced or excluded module makes `go install` of this one impossible", i+1, line)
		}
	}
}

// TestDependencies wants one justified line for each direct dependency, no line
// for one that has gone, and the places where it is used to be so: each imports
// it, and no other does outside its tests. The place "tests" means tests alone.
func TestDependencies(t *testing.T) {
	mods, all := direct(t), packages(t)
	for _, r := range rows(read(t, "docs/dependencies.md")) {
		if !mods[r[0]] {
			t.Errorf("docs/dependencies.md: %s is not a direct dependency in go.mod (or is listed twice)", r[0])
		}
		delete(mods, r[0])
		for _, problem := range places(all, r[0], strings.Split(r[1], ", ")) {
			t.Errorf("docs/dependencies.md: %s: %s", r[0], problem)
		}
		if len(r) != 3 || len(strings.Fields(r[2])) < 5 {
			t.Errorf("docs/dependencies.md: %s: expected three cells: module, where, and a reason in words", r[0])
		}
	}
	for m := range mods {
		t.Errorf("docs/dependencies.md: no line says why %s is needed", m)
	}
}

// places compares where a module is said to be imported with where it is.
func places(all []*pkg, mod string, said []string) (problems []string) {
	used := map[string]bool{}
	for _, p := range all {
		for _, imports := range []map[string]bool{p.imports, p.testImports} {
			for im := range imports {
				if im != mod && !strings.HasPrefix(im, mod+"/") {
					continue
				}
				within := slices.IndexFunc(said, func(place string) bool {
					return p.dir == place || strings.HasPrefix(p.dir, place+"/")
				})
				switch {
				case within >= 0:
					used[said[within]] = true
				case p.imports[im]:
					problems = append(problems, "imported by "+p.dir+", which is not among its places")
				default:
					used["tests"] = true
				}
			}
		}
	}
	for _, place := range said {
		if !used[place] {
			problems = append(problems, place+" does not import it")
		}
	}
	return problems
}
