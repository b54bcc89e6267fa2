package xdp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HeldError says that another process works on a pin folder.
type HeldError struct {
	Dir string
	PID int // 0 when the system does not tell
}

// Error names the process.
func (e *HeldError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("pin folder %s: %s works on it: stop that first (\"hedgerow stop\"), or set dataplane.pin_dir to another folder", e.Dir, who)
}

// acquire locks the pin folder, and makes it where it is missing. The lock is on
// the folder itself, so that it holds whatever state folder a daemon uses, and
// it ends with the process, by whatever means.
func (p *pins) acquire() error {
	if p.base == "" {
		return nil
	}
	for at := p.base; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		p.made = append(p.made, at)
	}
	if err := os.MkdirAll(p.base, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	f, err := os.Open(p.base)
	if err != nil {
		return fmt.Errorf("pin folder %s: %w", p.base, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return &HeldError{p.base, holder(f)}
		}
		return fmt.Errorf("pin folder %s: lock: %w", p.base, err)
	}
	p.lock = f
	return nil
}

// release lets others work on the folder.
func (p *pins) release() {
	if p.lock != nil {
		_ = p.lock.Close() // nothing was written
		p.lock = nil
	}
}

// unmake removes the folders that acquire made, where they are empty still.
func (p *pins) unmake() {
	for _, dir := range p.made {
		if os.Remove(dir) != nil {
			return
		}
	}
}

// holder is the process that holds the lock on an open file, as the kernel
// lists it; 0 when it does not.
func holder(f *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	at := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	for sc := bufio.NewScanner(locks); sc.Scan(); {
		words := strings.Fields(sc.Text()) // 1: FLOCK ADVISORY WRITE 4242 00:1f:77 0 EOF
		if i := slices.Index(words, at); i > 0 && slices.Contains(words, "FLOCK") {
			pid, _ := strconv.Atoi(words[i-1])
			return max(pid, 0)
		}
	}
	return 0
}
