//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// runPrefix begins the name of every run's folder; the process follows.
const runPrefix = "hedgerow-demo-"

// makeRunDir makes the run's folder and notes in it whose it is: a process id
// alone may be another's by the time that it is looked at.
func makeRunDir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, runPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", fmt.Errorf("run folder: %w", err)
	}
	start, err := startTime(os.Getpid())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "owner"), []byte(start), 0o600)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("run folder: %w", err), os.RemoveAll(dir))
	}
	return dir, nil
}

// removeStale removes the folders of our own earlier runs whose process is gone.
func removeStale(parent string, log *slog.Logger) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		if !e.IsDir() || !strings.HasPrefix(e.Name(), runPrefix) || !ownedByUs(e) || alive(dir, e.Name()) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Warn("leftover of a killed demo stays", "folder", dir, "error", err)
			continue
		}
		log.Info("removed the leftover of a killed demo", "folder", dir)
	}
}

func ownedByUs(e fs.DirEntry) bool {
	info, err := e.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// alive says whether the process that a run folder names is still that process.
func alive(dir, name string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(name, runPrefix), "-")
	n, err := strconv.Atoi(pid)
	if err != nil {
		return true // not a name of ours: leave it alone
	}
	now, err := startTime(n)
	if err != nil {
		return false
	}
	then, err := os.ReadFile(filepath.Join(dir, "owner"))
	return err != nil || string(then) == now
}

// startTime is when a process began, in clock ticks since boot (field 22 of
// /proc/PID/stat), with the boot's id, so that it is unique.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("process %d: /proc stat has an unexpected form", pid)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(boot)) + " " + fields[19], nil
}
