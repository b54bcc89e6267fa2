package feature

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// schemaTable is the schema as docs/features.md has it.
func schemaTable() string {
	var b strings.Builder
	b.WriteString("| feature | unit | range | absent when | why it is there |\n|---|---|---|---|---|\n")
	for _, f := range Schema() {
		fmt.Fprintf(&b, "| `%s` | %s | %s to %s | %s | %s |\n", f.Name, f.Unit, plainNumber(f.Lo), plainNumber(f.Hi), f.Absent, f.Why)
	}
	return b.String()
}

func plainNumber(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// TestDocumentationIsTheSchema: docs/features.md ends with the schema. With
// HEDGEROW_WRITE_DOCS=1 it is written there.
func TestDocumentationIsTheSchema(t *testing.T) {
	const path = "../../docs/features.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(b), "| feature |")
	if os.Getenv("HEDGEROW_WRITE_DOCS") == "1" {
		if err := os.WriteFile(path, []byte(head+schemaTable()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := string(b[len(head):]); !ok || got != schemaTable() {
		t.Errorf("%s does not end with the schema: run this test with HEDGEROW_WRITE_DOCS=1", path)
	}
	if !strings.Contains(head, fmt.Sprintf("| %d | %d |", Version, Dim)) {
		t.Errorf("%s tells nothing of version %d with %d features", path, Version, Dim)
	}
}
