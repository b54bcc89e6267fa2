package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// snapshot is every file of a folder by content, except the lock, whose only
// content is who asked last.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockFile {
			return err
		}
		b, err := os.ReadFile(path)
		m[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// made returns a folder with some state in it, closed.
func made(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, 0, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Each refusal is one line that says what, where and what to do, and leaves
// the folder as it was.
func TestRefusalsChangeNothing(t *testing.T) {
	id := strings.Repeat("ab", 16)
	tests := map[string]struct {
		bend func(t *testing.T, dir string)
		err  error
		want string
	}{
		"newer version": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "hedgerow state 2 "+id+"\n") },
			ErrVersion, "found format 2: expected 1; use the hedgerow that wrote it"},
		"foreign format file": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "PK\x03\x04") }, ErrForeign, "choose another state folder"},
		"cut short":           {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "hedgerow state 1 abab") }, ErrDamaged, "cut short"},
		"empty format file":   {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "") }, ErrForeign, "does not begin with"},
		"no version":          {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "hedgerow state x") }, ErrDamaged, "names no version"},
		"database gone": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, dbDir)); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged, "is missing; restore it from a backup"},
		"file list mangled": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, dbDir, "MANIFEST"), "garbage, garbage, garbage")
		},
			ErrDamaged, "the list of its files is unreadable; restore the folder from a backup"},
		"file list gone": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, dbDir, "MANIFEST")); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged, "the list of its files is missing"},
		"table gone": {func(t *testing.T, dir string) {
			tables, _ := filepath.Glob(filepath.Join(dir, dbDir, "*.sst"))
			if len(tables) == 0 {
				t.Fatal("no table to remove")
			}
			if err := os.Remove(tables[0]); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged, "sst of the database is missing"},
		"another's identity": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), "hedgerow state 1 "+id+"\n") },
			ErrDamaged, "belongs to another state folder"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			tt.bend(t, dir)
			before := snapshot(t, dir)
			s, err := Open(dir, Options{})
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("found %v", err)
			}
			if name == "another's identity" {
				return // the database had to be opened to be asked, and rolls its own log
			}
			after := snapshot(t, dir)
			for path, sum := range before {
				if after[path] != sum {
					t.Errorf("%s changed or went", path)
				}
			}
			for path := range after {
				if _, ok := before[path]; !ok {
					t.Errorf("%s is new", path)
				}
			}
		})
	}
}

func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "thesis.tex"), "x")
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "thesis.tex") {
		t.Fatalf("found %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("%d entries in a foreign folder", len(entries))
	}
	file := filepath.Join(dir, "thesis.tex")
	if _, err := Open(file, Options{}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Fatalf("a file as folder: %v", err)
	}
}

func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("by process %d", os.Getpid())) {
		t.Fatalf("found %v", err)
	}
}

// A first start that was cut short leaves FORMAT.new; nothing was acknowledged
// then, so the next start begins anew.
func TestInterruptedFirstStart(t *testing.T) {
	dir := made(t)
	if err := os.Rename(filepath.Join(dir, formatFile), filepath.Join(dir, newFile)); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	if list, err := s.Events(Query{}); err != nil || len(list) != 0 || s.Missing().Any() {
		t.Fatalf("%d events, %v, %v", len(list), err, s.Missing())
	}
	put(t, s, 0, 1)
}

// damage flips bytes in the middle of what the largest log holds.
func damage(t *testing.T, dir string) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, dbDir, "*.mem"))
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := len(bytes.TrimRight(b, "\x00"))
		if used < 1000 {
			continue
		}
		for i := used / 2; i < used/2+8; i++ {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no log to damage")
}

// abandon ends a store as kill -9 would: nothing is flushed, only the lock goes.
func abandon(t *testing.T, s *Store, dir string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "state"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(copied, "state")
}

// The database opens a damaged log silently shortened; the ledger and the
// witness say by how much, once, and the state goes on.
func TestDamagedLogIsReported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	const n = 200
	put(t, s, 0, n)
	dir = abandon(t, s, dir)
	damage(t, dir)

	s = open(t, dir, Options{})
	list, err := s.Events(Query{})
	if err != nil {
		t.Fatal(err)
	}
	missing := s.Missing()
	if len(list) == 0 || len(list) == n || missing.Writes != uint64(n-len(list)) || missing.After != uint64(len(list)) || missing.Broken {
		t.Fatalf("%d of %d events are left, reported: %s", len(list), n, missing)
	}
	if want := fmt.Sprintf("%d acknowledged writes are missing", n-len(list)); !strings.Contains(missing.String(), want) {
		t.Errorf("the report says %q", missing)
	}
	t.Log(missing)
	put(t, s, n, n+10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if s.Missing().Any() {
		t.Errorf("reported again: %s", s.Missing())
	}
	if list, err := s.Events(Query{}); err != nil || s.Stats().Writes != n+10 || list[len(list)-1].Peer.Name != fmt.Sprint(n+9) {
		t.Errorf("it does not go on: %d events, %v", len(list), err)
	}
}

// An older copy of the database beside the newer witness is a loss too.
func TestRolledBackDatabaseIsReported(t *testing.T) {
	dir := made(t)
	old := t.TempDir()
	if err := os.CopyFS(filepath.Join(old, dbDir), os.DirFS(filepath.Join(dir, dbDir))); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	put(t, s, 5, 12)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, dbDir)), os.Rename(filepath.Join(old, dbDir), filepath.Join(dir, dbDir))); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir, Options{}); s.Missing() != (Missing{Writes: 7, After: 5}) {
		t.Fatalf("reported: %+v", s.Missing())
	}
}

// A record that goes from the middle, and an entry that is exchanged, are seen.
func TestTamperedLedgerIsReported(t *testing.T) {
	bend := map[string]struct {
		do   func(s *Store) error
		want Missing
	}{
		"one goes": {func(s *Store) error { return s.deleteKeys([][]byte{ledgerKey(3)}) }, Missing{Writes: 1, After: 2}},
		"one changes": {func(s *Store) error {
			r := &request{class: classRecord, ops: []op{{[]byte("x"), []byte("forged")}}}
			forged := ledger{last: 2}
			key, entry := forged.add(r)
			return s.db.Update(func(txn *badger.Txn) error { return txn.Set(key, entry) })
		}, Missing{Broken: true}},
	}
	for name, tt := range bend {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			s := open(t, dir, Options{})
			if err := tt.do(s); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s = open(t, dir, Options{}); s.Missing() != tt.want {
				t.Fatalf("reported: %+v", s.Missing())
			}
		})
	}
}

// A torn witness costs the newer slot only.
func TestTornWitness(t *testing.T) {
	dir := made(t)
	path := filepath.Join(dir, witnessFile)
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 2*slotSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i := range b {
		torn := bytes.Clone(b)
		torn[i] ^= 0x55
		write(t, path, string(torn))
		f := &folder{dir: dir}
		if f.witness, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		if err := f.readWitness(); err != nil || f.last < 4 || f.last > 5 {
			t.Fatalf("byte %d torn: %d, %v", i, f.last, err)
		}
		_ = f.witness.Close()
	}
}

// On a disk that is nearly full, writes are refused, and go on when there is
// room again; nothing is hurt.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
			t.Fatal("HEDGEROW_KERNEL_TESTS is set, but this is not root")
		}
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("hedgerow-test", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(filepath.Join(dir, "state"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, 0, 3)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 90<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.PutEvent(peerEvent(epoch, "x")); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("on a full disk: %v", err)
	}
	if list, err := s.Events(Query{}); err != nil || len(list) != 3 {
		t.Fatalf("%d events, %v", len(list), err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	put(t, s, 3, 4)
}

func FuzzFormat(f *testing.F) {
	f.Add([]byte("hedgerow state 1 " + strings.Repeat("ab", 16) + "\n"))
	f.Add([]byte("hedgerow state 9"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := parseFormat(b)
		if err == nil && len(id) != 32 {
			t.Errorf("accepted with id %q", id)
		}
		if err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrDamaged) {
			t.Errorf("refused without a kind: %v", err)
		}
	})
}

// One flipped byte anywhere in a table is refused: unchecked, the database
// reads only up to it without an error, or ends the process.
func TestFlippedByteInTableIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, 0, 500)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tables, _ := filepath.Glob(filepath.Join(dir, dbDir, "*.sst"))
	if len(tables) != 1 {
		t.Fatalf("tables: %v", tables)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 16 {
		at := rng.IntN(len(whole))
		if i%2 == 0 {
			at = len(whole) - 1 - rng.IntN(300) // the index and its checksum
		}
		bent := bytes.Clone(whole)
		bent[at] ^= byte(1 + rng.IntN(255))
		write(t, tables[0], string(bent))
		s, err := Open(dir, Options{})
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d of %d: %v", at, len(whole), err)
		}
	}
	write(t, tables[0], string(whole))
	s = open(t, dir, Options{})
	if list, err := s.Events(Query{}); err != nil || len(list) != 500 {
		t.Errorf("the whole table: %d events, %v", len(list), err)
	}
}
