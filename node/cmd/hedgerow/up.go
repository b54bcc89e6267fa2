package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed/fetch"
	"github.com/hedgerow-mesh/hedgerow/node/internal/machine"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
	"github.com/hedgerow-mesh/hedgerow/node/internal/stix"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/taxii"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

const defaultConfig = "/etc/hedgerow/hedgerow.toml"

func upCommand() *cobra.Command {
	var path, state, socket, iface string
	c := &cobra.Command{
		Use: "up", Short: "Watch this gateway: learn, judge, and in enforce mode act", GroupID: "start",
		Long: `Watch this gateway. Without a configuration it finds the inside interface (or
the only one), starts in monitor mode as a site of its own, and keeps its state
in /var/lib/hedgerow. Nothing is dropped before ` + "`hedgerow mode enforce`" + `.`,
		Example: "  hedgerow up\n  hedgerow up --config /etc/hedgerow/hedgerow.toml\n  hedgerow up --interface lan0 --state ./state --socket ./hedgerow.sock",
		Args:    noArgs,
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	c.Flags().StringVar(&state, "state", "", "state folder, instead of site.state_dir")
	c.Flags().StringVar(&socket, "socket", "", "control socket, instead of site.socket")
	c.Flags().StringVar(&iface, "interface", "", "the only interface, instead of those of the configuration")
	c.RunE = func(c *cobra.Command, _ []string) error {
		flags := func(cfg *config.Config) (err error) {
			if state != "" {
				if cfg.Site.StateDir, err = filepath.Abs(state); err != nil {
					return err
				}
			}
			if socket != "" {
				if cfg.Site.Socket, err = filepath.Abs(socket); err != nil {
					return err
				}
			}
			if iface != "" {
				cfg.Dataplane.Interface, cfg.Dataplane.Attach = iface, nil
			}
			cfg.Site.Name = cfg.SiteName(hostName())
			return nil
		}
		for {
			re, err := newRereader(path, flags)
			if err != nil {
				return err
			}
			// What is pinned goes on enforcing while the site begins anew.
			if err := up(c.Context(), re, c.OutOrStdout(), c.ErrOrStderr()); !errors.Is(err, membership.ErrChanged) {
				return err
			}
			_, _ = fmt.Fprintln(c.OutOrStdout(), "the organisation's sites have changed: beginning anew with them")
		}
	}
	return c
}

// loadConfig reads the configuration; without a path, that of this machine, where
// there is one.
func loadConfig(path string) (*config.Config, error) {
	cfg, _, err := readConfig(path)
	return cfg, err
}

// readConfig says as well which file was read, "" when there is none.
func readConfig(path string) (cfg *config.Config, from string, err error) {
	given := path != ""
	if !given {
		path = defaultConfig
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !given {
		d := config.Default()
		return &d, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("configuration: %v (`hedgerow init` writes one)", err)
	}
	defer func() { _ = f.Close() }()
	cfg, err = config.Parse(f, path)
	return cfg, path, err
}

// up runs a site until ctx ends. It is one long straight function on purpose:
// what is validated and opened, in which order, is read here; every closing
// stands beside its opening.
func up(ctx context.Context, re *rereader, out, errw io.Writer) (err error) {
	cfg := re.started
	log, err := telemetry.NewLogger(errw, cfg.Telemetry.LogFormat, &re.level)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1) // from the first moment, or one that comes early ends us
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	place, err := placement(cfg)
	if err != nil {
		return err
	}
	roster, err := rosterOf(cfg)
	if err != nil {
		return err
	}

	shown, err := taxiiOf(cfg)
	if err != nil {
		return err
	}

	if err := xdp.Privileged(); err != nil {
		return err
	}

	// ---- Everything above needs no privilege and changes nothing. ----

	if err := os.MkdirAll(cfg.Site.StateDir, 0o700); err != nil {
		return fmt.Errorf("state folder: %v: run as root, or set site.state_dir to a folder that you may write", err)
	}
	st, err := store.Open(filepath.Join(cfg.Site.StateDir, "store"), store.Options{
		MaxBytes: cfg.Store.MaxBytes, RetainEvents: cfg.Store.KeepEvents, RetainFlows: cfg.Store.KeepFlows,
		Log: log.With(telemetry.KeyComponent, "store"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	key, err := siteKey(cfg)
	if err != nil {
		return err
	}
	l, err := api.Listen(cfg.Site.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	tools, err := listenForTools(cfg.Learner.Intake)
	if err != nil {
		return err
	}
	defer closeListener(tools)
	plane, err := loadPlane(cfg, place, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Close()) }()
	var remove atomic.Bool // enforcement ends with the daemon
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	var told atomic.Pointer[node.Node] // who hears of changes in the consortium, once it is there
	mesh, keeper, err := joinMesh(cfg, key, roster, func(r federation.Roll) {
		if n := told.Load(); n != nil {
			n.SetRoll(r)
		}
	}, log)
	if err != nil {
		return err
	}
	roster = mesh.Roster
	metrics := telemetry.NewMetrics(cfg.Site.Name)
	if err := errors.Join(metrics.WatchPlane(plane.Stats), metrics.WatchStore(st.Stats)); err != nil {
		return err
	}
	seed, err := learnerSeed(cfg, st)
	if err != nil {
		return err
	}
	o := siteOptions(cfg, place, seed)
	o.Plane, o.Store, o.Key, o.Mesh, o.Metrics, o.Log = plane, st, key, mesh, metrics, log
	o.Stop, o.Reread = func(r bool) { remove.Store(r); stop() }, re.reread
	n, err := node.New(o)
	if err != nil {
		return err
	}
	re.node = n
	told.Store(n)
	if plane.Supersedes() {
		n.Prime(ctx)
	}
	// What the site decided before stands in the tables now: packets may meet it.
	if err := plane.Attach(); err != nil {
		return err
	}
	attach, err := hooked(plane)
	if err != nil {
		return err
	}
	greet(out, cfg, place, attach, roster)

	s := &serving{node: n, keeper: keeper, plane: plane, metrics: metrics, control: l, tools: tools, hangups: hangups, role: place.Role, taxii: shown, log: log, stop: stop}
	if err := s.run(ctx, cfg.Telemetry.Metrics, &remove); err != nil {
		return err
	}
	if remove.Load() {
		_, _ = fmt.Fprintln(out, "stopped; enforcement ends")
		return nil
	}
	_, _ = fmt.Fprintln(out, "stopped; what is pinned goes on enforcing until it expires (`hedgerow detach` ends it)")
	return nil
}

// serving is what up has opened and runs until it is to stop.
type serving struct {
	node    *node.Node
	keeper  *membership.Keeper
	plane   *xdp.Plane
	metrics *telemetry.Metrics
	control net.Listener
	tools   net.Listener // where other tools say what was an attack; nil for none
	hangups <-chan os.Signal
	role    string
	taxii   *taxii.Options // nil: not served
	log     *slog.Logger
	stop    func() // ends run's context
}

// run serves until ctx ends, with figures at an address if there is one. If
// remove is set by then, enforcement ends, too.
func (s *serving) run(ctx context.Context, figures string, remove *atomic.Bool) error {
	// The socket is closed last: who asked to stop waits for that.
	answering, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	answered := make(chan error, 1)
	go func() { answered <- api.Serve(answering, s.control, s.node, s.log); s.stop() }()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.node.Run(ctx) })
	g.Go(func() error { return s.keeper.Run(ctx) })
	g.Go(func() error { return superviseBy(ctx, s.node, s.log) })
	g.Go(func() error { return followSystem(ctx, s.role, s.node, s.log) })
	g.Go(func() error { return reloadOn(ctx, s.hangups, s.node, s.log) })
	if s.tools != nil {
		g.Go(func() error { return api.ServeIntake(ctx, s.tools, s.node, s.log) })
	}
	if figures != "" {
		g.Go(func() error { return serveMetrics(ctx, figures, s.pages(), s.log) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if remove.Load() {
		err = errors.Join(err, s.plane.Detach())
	}
	hangUp()
	return errors.Join(err, <-answered)
}

// listenForTools opens the intake of other tools, if there is to be one.
func listenForTools(path string) (net.Listener, error) {
	if path == "" {
		return nil, nil
	}
	l, err := api.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("learner.intake: %w", err)
	}
	return l, nil
}

func closeListener(l net.Listener) {
	if l != nil {
		_ = l.Close()
	}
}

// siteOptions is what the configuration and the machine say of the site, without
// the parts that are opened or started.
func siteOptions(cfg *config.Config, place placed, seed uint64) node.Options {
	t := tuning(cfg)
	return node.Options{
		Site: cfg.Site.Name, Version: versionString(), Interface: place.names(), Mode: cfg.Dataplane.Mode,
		Never: place.Never, Spared: t.Spared, Own: place.Own, Inside: place.Inside,
		Warnings: place.Warnings, Away: away(cfg), Flood: t.Flood, Feeds: t.Feeds, Policy: t.Policy,
		Privacy: node.PrivacyOptions(cfg.Privacy),
		Learner: node.LearnerOptions{
			Enabled: cfg.Learner.Enabled, WarmupFlows: cfg.Learner.WarmupFlows, Warmup: cfg.Learner.Warmup,
			Wait: cfg.Learner.Wait, RetrainEvery: cfg.Learner.RetrainEvery, Probation: cfg.Learner.Probation, IncidentsPerDay: t.IncidentsPerDay,
			FalseBlocksPerMonth: cfg.Learner.FalseBlocksPerMonth,
			Shadow:              stageLength(cfg.Learner.Shadow), Canary: stageLength(cfg.Learner.Canary),
			CanaryShare: cfg.Learner.CanaryShare, TrialReports: cfg.Learner.TrialReports, Kernel: cfg.Learner.Kernel,
			Seed: seed, Context: feature.ContextOptions{Settle: cfg.Learner.Settle, Seed: seed},
		},
	}
}

// stageLength is a length of the configuration, where 0 skips the stage.
func stageLength(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// greet says in five lines what runs and what to do next.
func greet(w io.Writer, cfg *config.Config, p placed, attach string, roster []federation.Site) {
	mode, next := "monitor mode: nothing is dropped, what would be is counted", "hedgerow mode enforce"
	if cfg.Dataplane.Mode == dataplane.Enforce {
		mode, next = "enforce mode: verdicts act", "hedgerow blocks"
	}
	mesh := "a site of its own"
	if len(roster) > 0 {
		names := make([]string, 0, len(roster))
		for _, s := range roster {
			names = append(names, s.Name)
		}
		mesh = "mesh with " + strings.Join(names, ", ")
	}
	learn := "learning is off: only rules and shared indicators judge"
	if cfg.Learner.Enabled {
		learn = fmt.Sprintf("learns what is normal here: the first %d flows, or %s", cfg.Learner.WarmupFlows, cfg.Learner.Warmup)
	}
	_, _ = fmt.Fprintf(w, `hedgerow watches %s (%s; %s)
  %s
  %s; %s
  state in %s, socket %s
  next: hedgerow status | hedgerow alerts -f | %s
`, p.names(), attach, p.Why, mode, learn, mesh, cfg.Site.StateDir, cfg.Site.Socket, next)
}

func hostName() string {
	h, err := os.Hostname()
	if err != nil {
		return "site"
	}
	return h
}

// followSystem keeps the never-block list in step with the machine's addresses,
// gateways, resolvers and sessions.
func followSystem(ctx context.Context, role string, n *node.Node, log *slog.Logger) error {
	return machine.Watch(ctx, machine.WatchOptions{Log: log}, func(v *machine.View) {
		if err := n.SetSystem(v.NeverBlock(role), v.Own()); err != nil {
			log.Error("never-block list does not follow the system", telemetry.KeyErr, err)
		}
	})
}

// learnerSeed is the configured one, or one that was chosen at the first start.
func learnerSeed(cfg *config.Config, st *store.Store) (uint64, error) {
	if cfg.Learner.Seed != 0 {
		return cfg.Learner.Seed, nil
	}
	const key = "node/seed"
	b, err := st.Load(key)
	if err == nil && len(b) == 8 {
		return beUint64(b), nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	b = randomBytes(8)
	return beUint64(b), st.Save(key, b)
}

// pages are what is served beside the control socket: figures, and with a listing of
// indicators TAXII.
func (s *serving) pages() http.Handler {
	figures := s.metrics.Handler(func() error { _, err := s.plane.Stats(); return err })
	if s.taxii == nil {
		return figures
	}
	o := *s.taxii
	o.List = func(ctx context.Context) ([]stix.Indicator, error) {
		list, err := s.node.Indicators(ctx)
		return claimed(list), err
	}
	mux := http.NewServeMux()
	mux.Handle("/", figures)
	mux.Handle("/taxii2/", taxii.Handler(o))
	return mux
}

// taxiiOf is how indicators are served, nil when they are not.
func taxiiOf(cfg *config.Config) (*taxii.Options, error) {
	if !cfg.Telemetry.Taxii {
		return nil, nil
	}
	o := &taxii.Options{Title: "hedgerow at " + cfg.Site.Name}
	if cfg.Telemetry.TaxiiFile == "" {
		return o, nil
	}
	var err error
	if o.Token, err = fetch.ReadToken(cfg.Telemetry.TaxiiFile); err != nil {
		return nil, fmt.Errorf("telemetry.taxii_file: %w", err)
	}
	return o, nil
}

func serveMetrics(ctx context.Context, addr string, pages http.Handler, log *slog.Logger) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		// Figures are a courtesy: a taken port is no reason not to protect.
		log.Warn("metrics are not served: set telemetry.metrics to another address, or to \"\"", telemetry.KeyErr, err.Error())
		<-ctx.Done()
		return nil
	}
	s := &http.Server{
		Handler:           pages,
		ReadHeaderTimeout: 5 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %v", err)
	}
	return nil
}
