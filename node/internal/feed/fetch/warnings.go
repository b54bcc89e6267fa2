package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// maxWarningFiles bounds what a folder of warning lists may hold.
const maxWarningFiles = 4096

// Warning is one warning list.
type Warning struct {
	Name string // its folder's when the file is called list.json, as MISP has it, else the file's
	Path string
	List *feed.List
}

// Warnings reads warning lists: files, and the .json and .txt files (also as
// .gz) of folders and what is below them. Those whose name is in ignore are left
// out. The lists that could be read come back even with an error, which names
// all that could not: less protection is no reason for none.
func Warnings(ctx context.Context, paths, ignore []string) ([]Warning, error) {
	var files []string
	var problems []error
	for _, p := range paths {
		found, err := warningFiles(p)
		files = append(files, found...)
		if err != nil {
			problems = append(problems, err)
		}
	}
	if len(files) > maxWarningFiles {
		problems = append(problems, fmt.Errorf("%d warning lists: at most %d are read", len(files), maxWarningFiles))
		files = files[:maxWarningFiles]
	}
	var out []Warning
	for _, path := range files {
		w := Warning{Name: warningName(path), Path: path}
		if slices.Contains(ignore, w.Name) {
			continue
		}
		var err error
		if w.List, err = New(Options{Path: path}).Read(ctx, feed.Options{Warning: true}, nil); err != nil {
			problems = append(problems, fmt.Errorf("warning list %s: %w", w.Name, err))
			continue
		}
		out = append(out, w)
	}
	return out, errors.Join(problems...)
}

func warningFiles(path string) (files []string, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("warning lists: %w", err)
	}
	if !fi.IsDir() {
		return []string{path}, nil
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		name := strings.TrimSuffix(strings.ToLower(d.Name()), ".gz")
		if err == nil && d.Type().IsRegular() && (strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".txt")) {
			files = append(files, p)
		}
		if len(files) > maxWarningFiles {
			return filepath.SkipAll
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: holds no .json and no .txt file", path)
	}
	return files, err
}

func warningName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	if name == "list" {
		return filepath.Base(filepath.Dir(path))
	}
	return name
}
