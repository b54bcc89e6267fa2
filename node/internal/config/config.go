// Package config reads a site's one TOML file into typed values. It checks
// everything that can be checked without touching the system, and tells all
// that is wrong at once: each error names the line, the key, what was found
// and what was expected; a mistyped key is answered with the nearest known one.
//
// Duties: nothing below package node imports this one. node translates each
// section into the Options of the package that it belongs to, so those
// packages never learn that there is a file. schema.go is the single list of
// keys; docs/configuration.md describes the same list, and a test holds the two
// together.
package config

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Config is a whole configuration. Default returns one that is valid.
type Config struct {
	Site       Site
	Dataplane  Dataplane
	Learner    Learner
	Policy     Policy
	Flood      dataplane.Flood
	Mesh       Mesh
	Federation Federation
	Privacy    Privacy
	Feeds      Feeds
	Store      Store
	Telemetry  Telemetry
}

// Site says who this is and where it keeps things.
type Site struct {
	Name     string // lower-case letters, digits and hyphens, to 63; "" means the machine's host name
	StateDir string // absolute path
	Socket   string // absolute path of the control socket, at most 107 bytes
}

// Planes that may be asked for.
const (
	PlaneAuto = "auto" // xdp where possible, else soft is refused aloud by the caller
	PlaneXDP  = "xdp"
	PlaneSoft = "soft"
	PlaneNone = "none"
)

// Dataplane is the packet path.
type Dataplane struct {
	Plane      string         // one of the Plane constants
	Interface  string         // "" means: find the inside interface
	Role       string         // one of the Role constants
	Attach     []Attach       // further interfaces; without Interface, all of them
	Fail       string         // FailOpen or FailClosed
	DeadAfter  time.Duration  // how long the daemon may be away before Fail holds, 5 s to 1 h
	Mode       dataplane.Mode // monitor or enforce
	Inside     []netip.Prefix // networks of the protected side; empty means: those of the interface
	PinDir     string         // absolute path inside a bpffs; "" pins nothing
	MaxFlows   uint32         // 1024 to 16777216
	NeverBlock []dataplane.Never
	KeepGRO    bool // leave GRO on where XDP is generic
}

// Learner is what the site learns and when.
type Learner struct {
	Enabled         bool
	WarmupFlows     int           // flows before the first training, 50 to 1000000
	Warmup          time.Duration // longest wait for these flows, 0 to 30 d
	Wait            time.Duration // age at which a flow may teach normal, 0 to 7 d
	Settle          time.Duration // how long what was seen rests before it counts as familiar, 1 s to 1 d
	RetrainEvery    time.Duration // 10 s to 30 d
	Probation       time.Duration // of ordinary traffic before what only the learner finds has an effect, 0 to 30 d
	IncidentsPerDay float64       // false incidents that the operator accepts, above 0 to 1000
	// False blocks a month that the operator accepts, above 0 to 1000.
	FalseBlocksPerMonth float64
	Shadow              time.Duration // how long a new model scores beside the active one, 0 to 30 d
	Canary              time.Duration // how long it decides for some hosts, 0 to 30 d
	CanaryShare         float64       // of the hosts, 0.01 to 0.5
	TrialReports        int           // reports that either takes as well, 1 to 10000000
	Kernel              string        // KernelShadow, KernelOn or KernelOff
	Intake              string        // unix socket where other tools say what was an attack; "" for none
	Seed                uint64        // 0 means: choose one and keep it
}

// What the scorer that the kernel can run does.
const (
	KernelShadow = "shadow"
	KernelOn     = "on"
	KernelOff    = "off"
)

// Policy bounds what decisions may do.
type Policy struct {
	Suspend          time.Duration     // 1 s to 1 h
	Block            time.Duration     // 1 min to 7 d, not below Suspend
	MaxBlocksPerHour int               // 0 to 100000; 0 means that nothing is blocked by itself
	MaxShare         float64           // share of normal hosts and services that blocks may touch, 0 to 1
	Rules            bool              // the built-in rules (scan, brute force)
	Remediation      []dataplane.Never // what a quarantined host may still reach
}

// Mesh is the site's neighbours. A site without peers is complete.
type Mesh struct {
	Organisation string
	Listen       []string      // multiaddresses
	RoundEvery   time.Duration // 5 s to 30 d
	Gather       time.Duration // time for deltas to arrive in a round, 100 ms to 1 h, below RoundEvery
	Peers        []Peer
}

// Federation is how the site reaches others, and its part in a consortium. Who is in
// it is not configured: see `hedgerow consortium`.
type Federation struct {
	Discover       bool   // look for the roster's sites on the local network
	Relay          bool   // carry traffic of sites that cannot reach each other
	BehindNAT      bool   // others cannot reach this site: be reachable through relays
	PassphraseFile string // absolute path; of the key files, "" when these are not locked
}

// What Privacy.Unit hides.
const (
	PrivacyOff  = "off"
	PrivacyFlow = "flow"
	PrivacyHost = "host"
)

// Privacy bounds what this site's changes to the shared model tell of its normal
// traffic.
type Privacy struct {
	Unit    string  // one of the Privacy constants
	Epsilon float64 // budget of all changes together, 0.01 to 1000
	Delta   float64 // 1e-12 to 0.01
	Clip    float64 // length that one unit's gradient is cut to, 0.001 to 100
	Noise   float64 // in clips, 0.1 to 1000
}

// Peer is one other site of the same organisation.
type Peer struct {
	Name  string
	ID    string   // identity, as `hedgerow id` prints it there
	Addrs []string // multiaddresses; may be empty when the peer dials us
}

// Store bounds what the site keeps.
type Store struct {
	MaxBytes   int64         // 64 MiB to 16 TiB
	KeepEvents time.Duration // 1 h to 10 years
	KeepFlows  time.Duration // 1 min to 10 years
}

// Log formats.
const (
	LogText = "text"
	LogJSON = "json"
)

// Telemetry is what the site tells of itself.
type Telemetry struct {
	Metrics   string // host:port of the metrics listener; "" means none
	Log       slog.Level
	LogFormat string // one of the Log constants
	Taxii     bool   // serve shared indicators at the same address
	TaxiiFile string // absolute path of the token for TLP green; "" tells clear alone
}

const day = 24 * time.Hour

// Default returns the configuration of a solo site in monitor mode.
func Default() Config {
	return Config{
		Site:      Site{StateDir: "/var/lib/hedgerow", Socket: "/run/hedgerow/hedgerow.sock"},
		Dataplane: Dataplane{Plane: PlaneAuto, Role: RoleInside, Fail: FailOpen, DeadAfter: 30 * time.Second, PinDir: "/sys/fs/bpf/hedgerow", MaxFlows: 65536},
		Learner: Learner{
			Enabled: true, WarmupFlows: 500, Warmup: 30 * time.Minute, Wait: day,
			Settle: 10 * time.Minute, RetrainEvery: time.Hour, Probation: day, IncidentsPerDay: 5, FalseBlocksPerMonth: 1,
			Shadow: 30 * time.Minute, Canary: 30 * time.Minute, CanaryShare: 0.1, TrialReports: 1000, Kernel: KernelShadow,
		},
		Policy: Policy{
			Suspend: 30 * time.Second, Block: 4 * time.Hour, MaxBlocksPerHour: 60, MaxShare: 0.05, Rules: true,
		},
		// Far above what one honest source does, and what a gateway of the default
		// size can follow; services differ too much for a default to be right for many.
		Flood: dataplane.Flood{Source: 1000, SourceNet: 4000, Service: 10000, Destination: 20000, Breaker: 20000},
		Mesh: Mesh{
			Listen:     []string{"/ip4/0.0.0.0/tcp/4400", "/ip4/0.0.0.0/udp/4400/quic-v1"},
			RoundEvery: 10 * time.Minute, Gather: 5 * time.Second,
		},
		Privacy:   Privacy{Unit: PrivacyOff, Epsilon: 2, Delta: 1e-6, Clip: 0.1, Noise: 4},
		Feeds:     Feeds{MaxEntries: 1_500_000},
		Store:     Store{MaxBytes: 2 << 30, KeepEvents: 90 * day, KeepFlows: 30 * day},
		Telemetry: Telemetry{Metrics: "127.0.0.1:9464", LogFormat: LogText},
	}
}
