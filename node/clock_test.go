package node

import (
	"strings"
	"testing"
	"time"
)

func TestClockWatch(t *testing.T) {
	var c clockWatch
	now := time.Now()
	if s := c.look(now); s != "" {
		t.Fatal(s)
	}
	// Steady: wall and monotonic move together.
	for i := range 100 {
		if s := c.look(now.Add(time.Duration(i) * time.Second)); s != "" {
			t.Fatalf("a steady clock jumps: %s", s)
		}
	}
	// A time without monotonic reading, an hour ahead of the wall: set by hand.
	set := now.Add(time.Hour).Round(0)
	c.start = now.Round(0)
	c.offset = 0
	if s := c.look(set); s != "" {
		t.Fatalf("without a monotonic reading nothing can be told, yet: %s", s)
	}
}

func TestClockWatchNamesTheJump(t *testing.T) {
	c := clockWatch{start: time.Now(), offset: -3600 * time.Second}
	if s := c.look(time.Now()); !strings.Contains(s, "+3600 s") {
		t.Fatalf("a jump by an hour is told as %q", s)
	}
	if s := c.look(time.Now()); s != "" {
		t.Fatalf("told twice: %s", s)
	}
}
