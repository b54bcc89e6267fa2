package background

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	callingThread = 0
	lowestNice    = 19
)

// isMain says that the calling thread is the process's first.
func isMain() bool { return unix.Gettid() == unix.Getpid() }

// lower makes the calling thread yield to all others.
func lower() error {
	idle := unix.SchedAttr{Policy: unix.SCHED_IDLE, Flags: unix.SCHED_FLAG_RESET_ON_FORK} // what it starts is as usual
	err := unix.SchedSetAttr(callingThread, &idle, 0)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("set policy idle: %w", err)
	if nice := unix.Setpriority(unix.PRIO_PROCESS, callingThread, lowestNice); nice != nil {
		return errors.Join(err, fmt.Errorf("set nice %d: %w", lowestNice, nice))
	}
	return nil
}
