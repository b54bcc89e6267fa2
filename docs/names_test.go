package docs_test

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTests wants every test that a document names to exist.
func TestNamedTests(t *testing.T) {
	defined := map[string]bool{}
	def := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	files := tree(t)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || path.Base(path.Dir(f)) == "planetest" {
			for _, m := range def.FindAllStringSubmatch(read(t, f), -1) {
				defined[m[1]] = true
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")
	for _, f := range files {
		if path.Ext(f) != ".md" {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(read(t, f), -1) {
			if !defined[m[1]] {
				t.Errorf("%s names %s, which no package defines", f, m[1])
			}
		}
	}
}
