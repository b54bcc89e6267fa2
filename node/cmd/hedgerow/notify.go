package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// supervisor is who started the service and wants to hear of it (sd_notify(3)).
type supervisor struct {
	socket string
	every  time.Duration // of signs of life; 0: none are wanted
}

// findSupervisor reads what systemd leaves in the environment.
func findSupervisor(env func(string) string, pid int) supervisor {
	s := supervisor{socket: env("NOTIFY_SOCKET")}
	if s.socket == "" {
		return supervisor{}
	}
	us, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64)
	if of := env("WATCHDOG_PID"); err == nil && us > 0 && (of == "" || of == strconv.Itoa(pid)) {
		s.every = max(time.Duration(us)*time.Microsecond/3, time.Millisecond)
	}
	return s
}

func (s supervisor) tell(state string) error {
	if s.socket == "" {
		return nil
	}
	name := s.socket
	if name[0] == '@' {
		name = "\x00" + name[1:] // abstract
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %v", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %v", err)
	}
	return nil
}

// superviseBy tells the service manager that the site is up, and at each beat
// that it is alive: that is said only when the site and its plane answer.
func superviseBy(ctx context.Context, n *node.Node, log *slog.Logger) error {
	return findSupervisor(os.Getenv, os.Getpid()).serve(ctx, func(ctx context.Context) error {
		_, err := n.Status(ctx)
		return err
	}, log)
}

func (s supervisor) serve(ctx context.Context, alive func(context.Context) error, log *slog.Logger) error {
	said := func(state string) {
		if err := s.tell(state); err != nil {
			log.Warn("the service manager does not listen", telemetry.KeyErr, err.Error())
		}
	}
	said("READY=1")
	defer said("STOPPING=1")
	if s.every == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(s.every)
	defer t.Stop()
	for {
		if err := alive(ctx); err == nil {
			said("WATCHDOG=1")
		} else {
			log.Error("no sign of life is given to the service manager", telemetry.KeyErr, err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
