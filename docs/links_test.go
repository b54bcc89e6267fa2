package docs_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?)\s*$`)
)

// TestLinks follows every relative link of every document, to the heading.
func TestLinks(t *testing.T) {
	seen := 0
	for _, doc := range tree(t) {
		if path.Ext(doc) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, doc), ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			seen++
			if err := resolve(t, doc, m[1]); err != nil {
				t.Errorf("%s: link %s: %v", doc, m[1], err)
			}
		}
	}
	if seen < 5 {
		t.Fatalf("found %d relative links in all documents: the search is broken", seen)
	}
}

func resolve(t *testing.T, doc, target string) error {
	file, anchor, _ := strings.Cut(target, "#")
	if file == "" {
		file = doc
	} else {
		file = path.Join(path.Dir(doc), file)
	}
	if _, err := os.Stat(filepath.Join(root, file)); err != nil {
		return fmt.Errorf("%s does not exist", file)
	}
	if anchor == "" {
		return nil
	}
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(read(t, file), ""), -1) {
		if slug(h[1]) == anchor {
			return nil
		}
	}
	return fmt.Errorf("%s has no heading for #%s", file, anchor)
}

// slug is the anchor that code hosts derive from a heading.
func slug(h string) string {
	h = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(h), "")
	return strings.ReplaceAll(h, " ", "-")
}

// TestDecisions wants every record to be numbered without a gap, to have the
// same three parts, and to be in the list.
func TestDecisions(t *testing.T) {
	index := read(t, "docs/decisions/README.md")
	n := 0
	for _, doc := range tree(t) {
		name := path.Base(doc)
		if path.Dir(doc) != "docs/decisions" || name == "README.md" {
			continue
		}
		n++
		if want := fmt.Sprintf("%04d-", n); !strings.HasPrefix(name, want) {
			t.Errorf("%s: expected a name that starts with %s", doc, want)
		}
		if !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/decisions/README.md: does not list %s", name)
		}
		for _, part := range []string{"## Context", "## Decision", "## Consequences"} {
			if strings.TrimSpace(section(t, doc, part)) == "" {
				t.Errorf("%s: %s is empty", doc, part)
			}
		}
	}
	if n == 0 {
		t.Fatal("docs/decisions: no records")
	}
}
