//go:build linux

package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/lab"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Wire is the real daemon in three gateways' namespaces.
type Wire struct {
	*lab.Lab
	Sites   []demo.Site
	clients []*api.Client
}

const meshPort = 4400

// UpWire builds the namespaces and starts `self up` in each gateway.
func UpWire(ctx context.Context, sc *scenario.Scenario, self string, o Options, log *slog.Logger) (*Wire, error) {
	l, err := lab.Up(sc, lab.Options{Log: log})
	if err != nil {
		return nil, err
	}
	w := &Wire{Lab: l}
	if err := w.start(ctx, sc, self, o); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Wire) start(ctx context.Context, sc *scenario.Scenario, self string, o Options) error {
	ids := map[string]identity.ID{}
	for _, s := range sc.Sites {
		dir := filepath.Join(w.Gateway(s.Name).Dir, "state")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		k, err := identity.Create(dir)
		if err != nil {
			return err
		}
		ids[s.Name] = k.ID()
	}
	for i, s := range sc.Sites {
		gw := w.Gateway(s.Name)
		conf := filepath.Join(gw.Dir, "hedgerow.toml")
		if err := os.WriteFile(conf, []byte(configOf(sc, i, gw, ids, o)), 0o600); err != nil {
			return err
		}
		out, err := os.Create(filepath.Join(gw.Dir, "log"))
		if err != nil {
			return err
		}
		p, err := gw.Start(self, []string{"up", "--config", conf}, nil, out)
		if err != nil {
			_ = out.Close()
			return fmt.Errorf("demo: %s: %v", s.Name, err)
		}
		cl := api.NewClient(filepath.Join(gw.Dir, "s"))
		w.clients = append(w.clients, cl)
		if err := ready(ctx, cl, p); err != nil {
			return fmt.Errorf("demo: %s did not start: %v\n%s", s.Name, err, tail(out.Name()))
		}
		w.Sites = append(w.Sites, &site{s.Name, cl})
	}
	return nil
}

// configOf is the whole difference between the demo's gateways and a site's
// defaults.
func configOf(sc *scenario.Scenario, i int, gw *lab.Gateway, ids map[string]identity.ID, o Options) string {
	var b strings.Builder
	s := sc.Sites[i]
	fmt.Fprintf(&b, `[site]
name = %q
state_dir = %q
socket = %q
[dataplane]
plane = "xdp"
interface = %q
inside = [%q]
mode = "monitor"
pin_dir = %q
[learner]
enabled = %v
warmup_flows = %d
warmup = "1h"
wait = %q
settle = %q
probation = "0s"
retrain_every = "1h"
shadow = %q
canary = %q
canary_share = %v
trial_reports = %d
seed = %d
[policy]
suspend = %q
block = "1h"
[mesh]
organisation = %q
listen = ["/ip4/%s/tcp/%d", "/ip4/%s/udp/%d/quic-v1"]
round_every = %q
gather = %q
[telemetry]
metrics = ""
`, s.Name, filepath.Join(gw.Dir, "state"), filepath.Join(gw.Dir, "s"), lab.InterfaceLAN, s.LAN.String(),
		filepath.Join(gw.BPF, "hedgerow"), o.Learner, warmupFlows, ripen.String(), settle.String(), shadow.String(), canary.String(), canaryShare, trialReports, i+1, suspendFor.String(),
		organisation, s.WAN, meshPort, s.WAN, meshPort, roundEvery.String(), gather.String())
	for _, p := range sc.Sites {
		if p.Name != s.Name {
			fmt.Fprintf(&b, "[[mesh.peer]]\nname = %q\nid = %q\naddrs = [\"/ip4/%s/tcp/%d\"]\n", p.Name, ids[p.Name], p.WAN, meshPort)
		}
	}
	return b.String()
}

// ready waits until the daemon answers.
func ready(ctx context.Context, cl *api.Client, p *lab.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		_, err := cl.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("it ended: %v", p.Err())
		case <-ctx.Done():
			return err
		case <-t.C:
		}
	}
}

func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}

// Close stops the daemons and takes the namespaces down.
func (w *Wire) Close() error {
	if d := os.Getenv("HEDGEROW_DEMO_LOGS"); d != "" {
		for _, s := range w.Sites {
			_ = os.WriteFile(filepath.Join(d, s.Name()+".log"), []byte(tail(filepath.Join(w.Gateway(s.Name()).Dir, "log"))), 0o600)
		}
	}
	for _, c := range w.clients {
		c.Close()
	}
	return w.Lab.Close()
}
