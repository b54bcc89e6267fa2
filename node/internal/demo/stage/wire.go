//go:build linux

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/lab"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// meshPort is where each gateway's mesh listens on its outside address.
const meshPort = 4400

// startWithin is how long a daemon may take until its socket answers.
const startWithin = 20 * time.Second

// Wire puts the sites up as daemons in network namespaces: `program up` with a
// configuration of its own in each gateway. It needs root. program is the path
// of the hedgerow binary, usually from os.Executable.
func Wire(ctx context.Context, o Options, program string) (*Stage, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	l, err := lab.Up(o.Scenario, lab.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	w := &wireStage{o: o, lab: l}
	if err := w.launch(ctx, program); err != nil {
		return nil, errors.Join(fmt.Errorf("demo stage: %w", err), w.close())
	}
	st := &Stage{
		Network: l, Close: w.close,
		Where: "in the kernel (XDP and TCX in network namespaces, one daemon per gateway)",
	}
	for _, d := range w.daemons {
		st.Sites = append(st.Sites, site{d.gw.Site.Name, d.client})
	}
	return st, nil
}

type wireStage struct {
	o       Options
	lab     *lab.Lab
	daemons []*gatewayDaemon
}

// gatewayDaemon is one `hedgerow up`.
type gatewayDaemon struct {
	gw     *lab.Gateway
	id     identity.ID
	client *api.Client
	proc   *lab.Process
	out    tail
}

func (d *gatewayDaemon) file(name string) string { return filepath.Join(d.gw.Dir, name) }

// launch gives every gateway its identity and configuration, starts the
// daemons and waits until they answer.
func (w *wireStage) launch(ctx context.Context, program string) error {
	for _, s := range w.o.Scenario.Sites {
		d := &gatewayDaemon{gw: w.lab.Gateway(s.Name)}
		if err := os.Mkdir(d.file("state"), 0o700); err != nil {
			return err
		}
		key, err := identity.Create(d.file("state"))
		if err != nil {
			return fmt.Errorf("site %s: %w", s.Name, err)
		}
		d.id, d.client = key.ID(), api.NewClient(d.file("sock"))
		w.daemons = append(w.daemons, d)
	}
	for i, d := range w.daemons {
		path := d.file("hedgerow.toml")
		if err := os.WriteFile(path, []byte(w.configuration(i, d)), 0o600); err != nil {
			return err
		}
		var err error
		if d.proc, err = d.gw.Start(program, []string{"up", "--config", path}, os.Environ(), &d.out); err != nil {
			return err
		}
	}
	for _, d := range w.daemons {
		if err := d.answers(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configuration is the file that an operator of this site would write, with
// the paces of the demo.
func (w *wireStage) configuration(i int, d *gatewayDaemon) string {
	var b strings.Builder
	s := d.gw.Site
	set := func(key string, value any) {
		switch v := value.(type) {
		case string:
			fmt.Fprintf(&b, "%s = %q\n", key, v)
		case time.Duration:
			fmt.Fprintf(&b, "%s = %q\n", key, config.FormatDuration(v))
		default:
			fmt.Fprintf(&b, "%s = %v\n", key, v)
		}
	}
	b.WriteString("[site]\n")
	set("name", s.Name)
	set("state_dir", d.file("state"))
	set("socket", d.file("sock"))
	b.WriteString("[dataplane]\n")
	set("plane", config.PlaneXDP)
	set("interface", lab.InterfaceLAN)
	set("mode", "monitor")
	fmt.Fprintf(&b, "inside = [%q]\n", s.LAN)
	set("pin_dir", filepath.Join(d.gw.BPF, "hedgerow"))
	b.WriteString("[learner]\n")
	set("enabled", w.o.Learner)
	set("warmup_flows", warmupFlows)
	set("warmup", warmup)
	set("settle", settle)
	set("wait", ripen)
	set("retrain_every", retrainEvery)
	fmt.Fprintf(&b, "incidents_per_day = %.1f\n", incidents)
	set("seed", w.o.Scenario.Seed*16+uint64(i)+1)
	b.WriteString("[policy]\n")
	set("suspend", suspendFor)
	set("block", blockFor)
	set("max_blocks_per_hour", maxPerHour)
	set("max_share", maxShare)
	b.WriteString("[mesh]\n")
	set("organisation", organisation)
	fmt.Fprintf(&b, "listen = [%q]\n", meshAddr(s))
	set("round_every", roundEvery)
	set("gather", gather)
	for _, other := range w.daemons {
		if other == d {
			continue
		}
		b.WriteString("[[mesh.peer]]\n")
		set("name", other.gw.Site.Name)
		set("id", string(other.id))
		fmt.Fprintf(&b, "addrs = [%q]\n", meshAddr(other.gw.Site))
	}
	b.WriteString("[telemetry]\n")
	set("metrics", "")
	set("log", "info")
	return b.String()
}

func meshAddr(s *scenario.Site) string { return fmt.Sprintf("/ip4/%s/tcp/%d", s.WAN, meshPort) }

// answers waits until the daemon's socket does, or says what it printed when
// it ended.
func (d *gatewayDaemon) answers(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startWithin)
	for {
		if _, err := d.client.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-d.proc.Done():
			return fmt.Errorf("site %s: hedgerow up ended: %v: it said:\n%s", d.gw.Site.Name, d.proc.Err(), d.out.String())
		case <-deadline:
			return fmt.Errorf("site %s: hedgerow up did not answer within %v: it said:\n%s", d.gw.Site.Name, startWithin, d.out.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *wireStage) close() error {
	for _, d := range w.daemons {
		d.client.Close()
	}
	return w.lab.Close()
}

// tail keeps the last of what a daemon printed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = append(t.b[:0], t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
