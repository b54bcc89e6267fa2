package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// saysPrefix marks a line of hedgerow check on the console.
const saysPrefix = "matrix-check: "

// guest is the life as process 1. It never returns: a kernel whose process 1
// ends panics.
func guest() {
	if err := prepare(); err != nil {
		fmt.Println("matrix: prepare:", err)
		powerOff()
	}
	// Short: an emulated processor is some ten times slower, and the long forms
	// of tests repeat the same programs.
	tests := exec.Command("/xdp.test", "-test.v", "-test.short", "-test.run", argument("matrix.run", "."))
	tests.Env = []string{"HEDGEROW_KERNEL_TESTS=1", "HEDGEROW_GUEST=1", "HOME=/tmp", "TMPDIR=/tmp", "PATH=/"}
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	if err := tests.Run(); err != nil {
		fmt.Println("matrix: tests:", err)
	}
	check()
	powerOff()
}

func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func prepare() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"}, {"bpf", "/sys/fs/bpf"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil && !strings.HasPrefix(m.at, "/sys") {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return loadModules("/modules")
}

// loadModules loads all of a folder in the order of their names. What this
// kernel has built in, or lacks, is no reason to stop: tests say what they miss.
func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := unix.InitModule(b, ""); err != nil {
			fmt.Printf("matrix: module %s: %v\n", filepath.Base(f), err)
		}
	}
	return nil
}

// argument reads one word of the kernel's command line.
func argument(name, def string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return def
	}
	for _, w := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			return v
		}
	}
	return def
}

// check lets the product itself say what this kernel lacks.
func check() {
	cmd := exec.Command("/hedgerow", "check")
	cmd.Env = []string{"HOME=/tmp", "PATH=/"}
	out, _ := cmd.CombinedOutput() // its exit code says the same as its lines
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); strings.Contains(line, "TCX") || strings.Contains(line, "kernel") {
			fmt.Println(saysPrefix + line)
		}
	}
}
