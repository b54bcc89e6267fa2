//go:build linux

// Package netspace makes network namespaces that belong to this process alone,
// for the demo and for measurements: worlds with routers and hosts that touch
// nothing of the machine's network, and vanish with the process.
package netspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is a network namespace (and a mount namespace) held by one thread. It
// has no name in the file system: when the thread and the processes started in
// it are gone, also after a kill -9, the kernel takes the namespace, its
// links, rules and mounts with it.
type Space struct {
	name  string
	net   int // descriptor of the network namespace
	calls chan func()
	done  chan struct{}
	once  sync.Once
}

// New makes both namespaces. The mounts start as a private copy with a
// sysfs that shows the new network.
func New(name string) (*Space, error) {
	s := &Space{name: name, net: -1, calls: make(chan func()), done: make(chan struct{})}
	ready := make(chan error, 1)
	go s.hold(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	return s, nil
}

// hold runs on the namespace's own thread until close. The thread is never
// given back: it ends with the goroutine.
func (s *Space) hold(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread of a process stands for it in /proc and never
		// ends; it keeps its namespaces. Hold it while another is found.
		defer runtime.UnlockOSThread()
		go s.hold(ready)
		<-s.done
		return
	}
	err := s.enter()
	ready <- err
	if err == nil {
		for call := range s.calls {
			call()
		}
		_ = unix.Close(s.net)
	}
	close(s.done)
}

func (s *Space) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	s.net = fd
	return nil
}

// Do runs f on the namespace's thread, one call at a time. What f starts (a
// child process, a socket) belongs to the namespace.
func (s *Space) Do(f func() error) error {
	res := make(chan error, 1)
	select {
	case s.calls <- func() { res <- f() }:
		return <-res
	case <-s.done:
		return errors.New("namespace is closed")
	}
}

// Visit runs f on the caller's own thread, moved into the network namespace
// for as long as f takes. Any number of visits may go on at once.
func (s *Space) Visit(f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("visit %s: %w", s.name, err)
	}
	defer unix.Close(home)
	if err := unix.Setns(s.net, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("visit %s: %w", s.name, err)
	}
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so it ends with this goroutine instead of
		// running others' work in the wrong network.
		return errors.Join(err, fmt.Errorf("leave %s: %w", s.name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Sysctl sets a value of this network, named as in net/ipv4/ip_forward.
func (s *Space) Sysctl(name, value string) error {
	return s.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
		return nil
	})
}

// Close ends the thread; children that were started on it and still live are
// killed by the kernel.
func (s *Space) Close() {
	s.once.Do(func() { close(s.calls) })
	<-s.done
}

// FD is a descriptor of the network namespace, valid until Close.
func (s *Space) FD() int { return s.net }
