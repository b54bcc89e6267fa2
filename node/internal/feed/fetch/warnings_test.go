package fetch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"cdn/list.json": `{"list": ["104.16.0.0/13", "224.0.0.0/4"]}`, "vpn/list.json": `{"list": ["45.9.148.0/24"]}`,
		"mine.txt": "9.9.9.9\n", "broken/list.json": "{", "README.md": "1.1.1.1",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, path), text, time.Now())
	}
	ws, err := Warnings(t.Context(), []string{dir, filepath.Join(dir, "mine.txt"), filepath.Join(dir, "absent")}, []string{"vpn"})
	var got []string
	for _, w := range ws {
		got = append(got, fmt.Sprintf("%s:%d", w.Name, w.List.Len()))
	}
	if strings.Join(got, " ") != "cdn:2 mine:1 mine:1" {
		t.Errorf("lists %v", got)
	}
	if err == nil || !strings.Contains(err.Error(), "warning list broken: ") || !strings.Contains(err.Error(), "absent") {
		t.Errorf("problems: %v", err)
	}
	if _, err := Warnings(t.Context(), []string{t.TempDir()}, nil); err == nil || !strings.Contains(err.Error(), "no .json") {
		t.Errorf("an empty folder: %v", err)
	}
}
