package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Format is the version of what is stored. A store opens only its own.
const Format = 1

const (
	formatFile  = "FORMAT"
	newFile     = "FORMAT.new" // there while a new folder is being made
	lockFile    = "LOCK"
	witnessFile = "WITNESS"
	dbDir       = "db"
	formatMagic = "hedgerow state"
)

// folder is the state folder apart from its database.
type folder struct {
	dir     string
	id      string // random, also inside the database: neither can be exchanged alone
	fresh   bool   // made by this Open and not yet finished
	lock    *os.File
	witness *os.File
	last    uint64 // last acknowledged number by the witness
	slot    int
}

// openFolder decides, reading only, whether dir may be used, and then takes it.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir}
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	if err := f.inspect(names); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	if err := f.take(); err != nil {
		return nil, err
	}
	if err := f.settle(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// settle looks again now that nobody else can be making the folder, and
// prepares it.
func (f *folder) settle() error {
	f.fresh = false
	names, err := list(f.dir)
	if err != nil {
		return err
	}
	if err := f.inspect(names); err != nil {
		return err
	}
	return f.prepare()
}

func list(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, nil
}

// inspect reads FORMAT and refuses what is not ours. It changes nothing.
func (f *folder) inspect(names map[string]bool) error {
	switch {
	case names[formatFile]:
		b, err := readSmall(filepath.Join(f.dir, formatFile))
		if err != nil {
			return err
		}
		if f.id, err = parseFormat(b); err != nil {
			return err
		}
		if !names[dbDir] {
			return fmt.Errorf("%w: its database folder %q is missing; restore it from a backup, or move the folder away to start anew", ErrDamaged, dbDir)
		}
		return nil
	case names[newFile]:
		f.fresh = true // a first start that was cut short: nothing was acknowledged yet
		return nil
	}
	delete(names, lockFile)
	for name := range names {
		return fmt.Errorf("%w: it holds %q but no %s; expected an empty folder or one that hedgerow made: choose another state folder", ErrForeign, name, formatFile)
	}
	f.fresh = true
	return nil
}

func readSmall(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	return b, nil
}

// parseFormat reads "hedgerow state 1 <id>\n".
func parseFormat(b []byte) (id string, err error) {
	rest, ok := strings.CutPrefix(string(b), formatMagic+" ")
	if !ok {
		return "", fmt.Errorf("%w: %s does not begin with %q; choose another state folder, or restore this one from a backup", ErrForeign, formatFile, formatMagic)
	}
	version, id, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
	n, err := strconv.Atoi(version)
	if err != nil {
		return "", fmt.Errorf("%w: %s names no version; restore it from a backup", ErrDamaged, formatFile)
	}
	if n != Format {
		return "", fmt.Errorf("%w: found format %d: expected %d; use the hedgerow that wrote it, or choose another state folder", ErrVersion, n, Format)
	}
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return "", fmt.Errorf("%w: %s is cut short; restore it from a backup", ErrDamaged, formatFile)
	}
	return id, nil
}

// take locks the folder for this process.
func (f *folder) take() error {
	path := filepath.Join(f.dir, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("take the folder: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("take the folder: %w", err)
		}
		owner, _ := io.ReadAll(io.LimitReader(file, 20))
		return fmt.Errorf("%w by process %s: stop that hedgerow, or give this one its own state folder", ErrInUse, pid(owner))
	}
	f.lock = file
	if err := file.Truncate(0); err != nil {
		f.close()
		return fmt.Errorf("take the folder: %w", err)
	}
	_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if err != nil {
		f.close()
		return fmt.Errorf("take the folder: %w", err)
	}
	return nil
}

func pid(b []byte) string {
	if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 {
		return strconv.Itoa(n)
	}
	return "(unknown)"
}

// prepare makes what a new folder needs and opens the witness.
func (f *folder) prepare() error {
	if f.fresh {
		if err := f.begin(); err != nil {
			return err
		}
	}
	var err error
	f.witness, err = os.OpenFile(filepath.Join(f.dir, witnessFile), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open the witness: %w", err)
	}
	return f.readWitness()
}

// begin starts a new folder over, also after a start that was cut short.
func (f *folder) begin() error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand never fails on the platforms that Go supports
	f.id = hex.EncodeToString(id[:])
	text := fmt.Sprintf("%s %d %s\n", formatMagic, Format, f.id)
	if err := writeSync(filepath.Join(f.dir, newFile), []byte(text)); err != nil {
		return err
	}
	for _, name := range []string{dbDir, witnessFile} {
		if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
			return fmt.Errorf("clear a start that was cut short: %w", err)
		}
	}
	return nil
}

// finish says that the database of a new folder is complete.
func (f *folder) finish() error {
	if !f.fresh {
		return nil
	}
	if err := os.Rename(filepath.Join(f.dir, newFile), filepath.Join(f.dir, formatFile)); err != nil {
		return fmt.Errorf("finish the new folder: %w", err)
	}
	f.fresh = false
	return syncDir(f.dir)
}

func writeSync(path string, b []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = file.Write(b)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the folder: %w", err)
	}
	return nil
}

func (f *folder) close() {
	if f.witness != nil {
		_ = f.witness.Close()
	}
	if f.lock != nil {
		_ = f.lock.Close()
	}
}

// The witness has two slots of 16 bytes, written in turn: number, checksum,
// mark. A torn write costs the newer slot only.
const slotSize = 16

var witnessMark = []byte("hgw1")

func (f *folder) readWitness() error {
	b := make([]byte, 2*slotSize)
	n, err := f.witness.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the witness: %w", err)
	}
	for i := range 2 {
		if (i+1)*slotSize > n {
			break
		}
		slot := b[i*slotSize : (i+1)*slotSize]
		if !bytes.Equal(slot[12:], witnessMark) || crc32.ChecksumIEEE(slot[:8]) != binary.BigEndian.Uint32(slot[8:]) {
			continue
		}
		if seq := binary.BigEndian.Uint64(slot); seq >= f.last {
			f.last, f.slot = seq, i
		}
	}
	return nil
}

// attest records seq as acknowledged. It is not synced: the database is, and
// before this; so after a loss of power the witness can only be behind.
func (f *folder) attest(seq uint64) error {
	f.slot = 1 - f.slot
	b := binary.BigEndian.AppendUint64(nil, seq)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(b, witnessMark...)
	if _, err := f.witness.WriteAt(b, int64(f.slot*slotSize)); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	f.last = seq
	return nil
}
