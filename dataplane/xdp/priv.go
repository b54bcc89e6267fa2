package xdp

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var neededCaps = []struct {
	name string
	bit  uint
}{
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_BPF", unix.CAP_BPF},
	{"CAP_PERFMON", unix.CAP_PERFMON},
}

// missingCaps names the capabilities that this process would need and lacks.
func missingCaps() ([]string, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	has := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	var missing []string
	for _, c := range neededCaps {
		if !has(c.bit) && (c.bit == unix.CAP_NET_ADMIN || !has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	return missing, nil
}

// PrivilegeError says who lacks what.
type PrivilegeError struct {
	UID     int
	Missing []string
}

// Error is one line with what to do.
func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("user %d lacks %s: run as root, or give the service these capabilities (AmbientCapabilities= in its unit)",
		e.UID, strings.Join(e.Missing, ", "))
}

// Privileged says whether this process may load and attach the programs; the
// error is a *PrivilegeError. It changes nothing.
func Privileged() error {
	missing, err := missingCaps()
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &PrivilegeError{os.Geteuid(), missing}
	}
	return nil
}
