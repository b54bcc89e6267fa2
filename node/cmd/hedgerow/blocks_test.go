package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// site answers some questions of the daemon; any other would end the test.
type site struct {
	api.Backend
	d      api.Difference
	orders []api.Order
	mode   string
}

func (s *site) Status(context.Context) (api.Status, error) { return api.Status{Mode: s.mode}, nil }

func (s *site) Blocks(context.Context) ([]api.Block, error) {
	return []api.Block{{Block: event.Block{Target: "203.0.113.9", Action: "block"}, Enforced: true}}, nil
}

func (s *site) Verify(context.Context) (api.Difference, error) { return s.d, nil }

func (s *site) Order(_ context.Context, o api.Order) error {
	s.orders = append(s.orders, o)
	return nil
}

// run executes a command line against the site's socket.
func (s *site) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: api.Handler(s, nil)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // ends with Close
	}()
	defer func() {
		_ = server.Close()
		<-ended
	}()
	for _, c := range dailyCommands() {
		if c.Name() == args[0] {
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SilenceUsage, c.SilenceErrors = true, true
			c.SetArgs(append(args[1:], "--socket", socket))
			err := c.ExecuteContext(t.Context())
			return out.String(), err
		}
	}
	t.Fatalf("no command %s", args[0])
	return "", nil
}

func TestVerifyFailsOnADifference(t *testing.T) {
	s := &site{d: api.Difference{Intended: 3, Enforced: 3}}
	if out, err := s.run(t, "blocks", "--verify"); err != nil || !strings.Contains(out, "3 rules are intended") {
		t.Errorf("no difference: %q, %v", out, err)
	}
	s.d.Lists = []dataplane.ListState{{List: "never-block", Intended: 4, Enforced: 4}}
	if out, err := s.run(t, "blocks", "--verify"); err != nil || !strings.Contains(out, "never-block: 4 entries are intended, and exactly these") {
		t.Errorf("no difference: %q, %v", out, err)
	}
	s.d.Lists[0].Missing = []string{"192.0.2.1/32"}
	if _, err := s.run(t, "blocks", "--verify"); err == nil || !strings.Contains(err.Error(), "never-block: 1 not enforced (192.0.2.1/32)") {
		t.Errorf("a list that differs: %v", err)
	}
	s.d.Missing, s.d.Extra = []string{"block of 203.0.113.1"}, []string{"block of 203.0.113.4"}
	_, err := s.run(t, "blocks", "--verify")
	if err == nil || !strings.Contains(err.Error(), "1 not enforced (block of 203.0.113.1)") || !strings.Contains(err.Error(), "intended (block of 203.0.113.4)") {
		t.Errorf("a difference: %v", err)
	}
	if _, err := s.run(t, "blocks", "--verify", "--json"); err == nil {
		t.Error("a difference passed with --json")
	}
}

func TestASharedBlockIsAnOrder(t *testing.T) {
	s := &site{}
	out, err := s.run(t, "block", "203.0.113.9", "--share", "--reason", "why", "--for", "1h")
	want := api.Order{Target: "203.0.113.9", Action: "block", Seconds: 3600, Reason: "why", Share: true}
	if err != nil || len(s.orders) != 1 || s.orders[0] != want || !strings.Contains(out, "told the organisation's other sites") {
		t.Errorf("%q, %v: ordered %+v", out, err, s.orders)
	}
}

func TestOrdersByCommand(t *testing.T) {
	s := &site{}
	for _, line := range [][]string{
		{"quarantine", "10.0.0.5", "--for", "1h", "--reason", "beacons"},
		{"limit", "to 10.0.0.5", "--rate", "50"},
	} {
		out, err := s.run(t, line...)
		if err != nil || !strings.Contains(out, "undo: hedgerow unblock '"+line[1]+"'") {
			t.Errorf("%v: %q, %v", line, out, err)
		}
	}
	want := []api.Order{
		{Target: "10.0.0.5", Action: "quarantine", Seconds: 3600, Reason: "beacons"},
		{Target: "to 10.0.0.5", Action: "rate-limit", Rate: 50},
	}
	if len(s.orders) != 2 || s.orders[0] != want[0] || s.orders[1] != want[1] {
		t.Errorf("ordered %+v", s.orders)
	}
}

// Nobody may believe that a rule drops packets while the site drops none.
func TestOrdersInMonitorModeSaySo(t *testing.T) {
	for _, mode := range []string{"monitor", "enforce"} {
		s := &site{mode: mode}
		for _, line := range [][]string{
			{"block", "203.0.113.9", "--share", "--reason", "why"}, {"quarantine", "10.0.0.5"}, {"limit", "10.0.0.5"}, {"blocks"},
		} {
			out, err := s.run(t, line...)
			if err != nil || strings.Contains(out, "in monitor mode") != (mode == "monitor") {
				t.Errorf("%s mode: %v: %q, %v", mode, line, out, err)
			}
		}
	}
}
