package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// quietDaemon serves a site that runs in software, with its state in a folder; it gives
// the control socket.
func quietDaemon(t *testing.T, state string) (socket string) {
	t.Helper()
	st, err := store.Open(filepath.Join(state, "store"), store.Options{})
	must(t, err)
	key, err := identity.Generate(rand.Reader)
	must(t, err)
	plane, err := softplane.Open(softplane.Options{})
	must(t, err)
	n, err := node.New(node.Options{Site: "oak", Plane: plane, Store: st, Key: key, Learner: node.LearnerOptions{Enabled: true, RetrainEvery: time.Hour, Wait: time.Hour}})
	must(t, err)
	l, err := api.Listen(filepath.Join(t.TempDir(), "s"))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran, served := make(chan error, 1), make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	go func() { served <- api.Serve(ctx, l, n, nil) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-served)
		must(t, <-ran)
		must(t, plane.Close())
		must(t, st.Close())
	})
	return l.Addr().String()
}

// line runs a command line and gives what it printed.
func line(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := newRoot()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// TestHistoryReachesTheDaemon: a daemon that runs learns what the command reads, the
// answer is that of a site that does not run, and a daemon of another state is left
// alone.
func TestHistoryReachesTheDaemon(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "conn.log")
	must(t, os.WriteFile(log, []byte("#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_pkts\tresp_pkts\torig_ip_bytes\tresp_ip_bytes\tlabel\n"+
		"1700000000.5\tC1\t10.0.0.1\t4000\t198.51.100.2\t443\ttcp\t0.5\t5\t4\t400\t500\tMalicious\n"), 0o600))
	state := filepath.Join(dir, "running")
	socket := quietDaemon(t, state)
	t.Setenv("HEDGEROW_SOCKET", socket)
	args := []string{"learn", "history", "--json", "--state", state, log}
	handed, err := line(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	var got learned
	if err := json.Unmarshal([]byte(handed), &got); err != nil || got.Result == nil || got.Result.Attacks != 1 {
		t.Fatalf("handed over: %v: %s", err, handed)
	}
	other := filepath.Join(dir, "resting")
	alone, err := line(t, "learn", "history", "--json", "--state", other, log)
	if err != nil || alone != handed {
		t.Errorf("on a state that no daemon holds: %v: %s\nhanded over: %s", err, alone, handed)
	}
	if again, err := line(t, "learn", "history", "--json", "--state", other, "--socket", socket, log); err != nil || again != handed {
		t.Errorf("to a named daemon: %v: %s", err, again)
	}
	if _, err := line(t, "learn", "history", "--socket", filepath.Join(dir, "nobody"), log); err == nil || !strings.Contains(err.Error(), "no daemon at") {
		t.Errorf("a named daemon that is not there: %v", err)
	}
	if out, err := line(t, "learn", "history", "--dry-run", "--state", state, log); err != nil || !strings.Contains(out, "nothing was changed") {
		t.Errorf("a dry run beside the daemon: %v: %s", err, out)
	}
}
