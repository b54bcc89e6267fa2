package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// field is one key: where its value goes and what is allowed there.
type field[T any] struct {
	key    string
	expect string // in words, for the error of a wrong type
	set    func(*T, any) error
}

// sections are the tables that may stand in a file.
var sections = []string{"site", "dataplane", "learner", "policy", "flood", "mesh", "federation", "privacy", "feeds", "store", "telemetry"}

// fields is every key outside [[mesh.peer]], in the order of the documentation.
func fields() []field[Config] {
	return []field[Config]{
		text("site.name", func(c *Config) *string { return &c.Site.Name }, checkName),
		text("site.state_dir", func(c *Config) *string { return &c.Site.StateDir }, checkPath),
		text("site.socket", func(c *Config) *string { return &c.Site.Socket }, checkSocket),
		text("dataplane.plane", func(c *Config) *string { return &c.Dataplane.Plane }, oneOf(PlaneAuto, PlaneXDP, PlaneSoft, PlaneNone)),
		text("dataplane.interface", func(c *Config) *string { return &c.Dataplane.Interface }, checkInterface),
		text("dataplane.role", func(c *Config) *string { return &c.Dataplane.Role }, anyRole),
		text("dataplane.fail", func(c *Config) *string { return &c.Dataplane.Fail }, oneOf(FailOpen, FailClosed)),
		duration("dataplane.dead_after", func(c *Config) *time.Duration { return &c.Dataplane.DeadAfter }, minDead, maxDead),
		flag("dataplane.keep_gro", func(c *Config) *bool { return &c.Dataplane.KeepGRO }),
		{"dataplane.mode", "a string", setMode},
		list("dataplane.inside", func(c *Config) *[]netip.Prefix { return &c.Dataplane.Inside }, parsePrefix),
		text("dataplane.pin_dir", func(c *Config) *string { return &c.Dataplane.PinDir }, orEmpty(checkPath)),
		whole("dataplane.max_flows", func(c *Config) *uint32 { return &c.Dataplane.MaxFlows }, 1024, 1<<24),
		list("dataplane.never_block", func(c *Config) *[]dataplane.Never { return &c.Dataplane.NeverBlock }, ParseNever),
		flag("learner.enabled", func(c *Config) *bool { return &c.Learner.Enabled }),
		whole("learner.warmup_flows", func(c *Config) *int { return &c.Learner.WarmupFlows }, 50, 1_000_000),
		duration("learner.warmup", func(c *Config) *time.Duration { return &c.Learner.Warmup }, 0, 30*day),
		duration("learner.wait", func(c *Config) *time.Duration { return &c.Learner.Wait }, 0, 7*day),
		duration("learner.settle", func(c *Config) *time.Duration { return &c.Learner.Settle }, time.Second, day),
		duration("learner.retrain_every", func(c *Config) *time.Duration { return &c.Learner.RetrainEvery }, 10*time.Second, 30*day),
		duration("learner.probation", func(c *Config) *time.Duration { return &c.Learner.Probation }, 0, 30*day),
		number("learner.incidents_per_day", func(c *Config) *float64 { return &c.Learner.IncidentsPerDay }, 0.001, 1000),
		number("learner.false_blocks_per_month", func(c *Config) *float64 { return &c.Learner.FalseBlocksPerMonth }, 0.001, 1000),
		duration("learner.shadow", func(c *Config) *time.Duration { return &c.Learner.Shadow }, 0, 30*day),
		duration("learner.canary", func(c *Config) *time.Duration { return &c.Learner.Canary }, 0, 30*day),
		number("learner.canary_share", func(c *Config) *float64 { return &c.Learner.CanaryShare }, 0.01, 0.5),
		whole("learner.trial_reports", func(c *Config) *int { return &c.Learner.TrialReports }, 1, 10_000_000),
		text("learner.intake", func(c *Config) *string { return &c.Learner.Intake }, orEmpty(checkSocket)),
		text("learner.kernel", func(c *Config) *string { return &c.Learner.Kernel }, oneOf(KernelShadow, KernelOn, KernelOff)),
		whole("learner.seed", func(c *Config) *uint64 { return &c.Learner.Seed }, 0, math.MaxInt64),
		duration("policy.suspend", func(c *Config) *time.Duration { return &c.Policy.Suspend }, time.Second, time.Hour),
		duration("policy.block", func(c *Config) *time.Duration { return &c.Policy.Block }, time.Minute, 7*day),
		whole("policy.max_blocks_per_hour", func(c *Config) *int { return &c.Policy.MaxBlocksPerHour }, 0, 100_000),
		number("policy.max_share", func(c *Config) *float64 { return &c.Policy.MaxShare }, 0, 1),
		flag("policy.rules", func(c *Config) *bool { return &c.Policy.Rules }),
		list("policy.remediation", func(c *Config) *[]dataplane.Never { return &c.Policy.Remediation }, ParseNever),
		whole("flood.source", func(c *Config) *uint32 { return &c.Flood.Source }, 0, 10_000_000),
		whole("flood.source_net", func(c *Config) *uint32 { return &c.Flood.SourceNet }, 0, 10_000_000),
		whole("flood.service", func(c *Config) *uint32 { return &c.Flood.Service }, 0, 10_000_000),
		whole("flood.destination", func(c *Config) *uint32 { return &c.Flood.Destination }, 0, 10_000_000),
		whole("flood.breaker", func(c *Config) *uint32 { return &c.Flood.Breaker }, 0, 10_000_000),
		flag("flood.breaker_drops", func(c *Config) *bool { return &c.Flood.BreakerDrops }),
		list("flood.protected", func(c *Config) *[]dataplane.Guarded { return &c.Flood.Protected }, parseGuarded),
		list("flood.dark", func(c *Config) *[]netip.Prefix { return &c.Flood.Dark }, parsePrefix),
		text("mesh.organisation", func(c *Config) *string { return &c.Mesh.Organisation }, orEmpty(checkName)),
		list("mesh.listen", func(c *Config) *[]string { return &c.Mesh.Listen }, multiaddr),
		duration("mesh.round_every", func(c *Config) *time.Duration { return &c.Mesh.RoundEvery }, 5*time.Second, 30*day),
		duration("mesh.gather", func(c *Config) *time.Duration { return &c.Mesh.Gather }, 100*time.Millisecond, time.Hour),
		flag("federation.discover", func(c *Config) *bool { return &c.Federation.Discover }),
		flag("federation.relay", func(c *Config) *bool { return &c.Federation.Relay }),
		flag("federation.behind_nat", func(c *Config) *bool { return &c.Federation.BehindNAT }),
		text("federation.passphrase_file", func(c *Config) *string { return &c.Federation.PassphraseFile }, orEmpty(checkPath)),
		text("privacy.unit", func(c *Config) *string { return &c.Privacy.Unit }, oneOf(PrivacyOff, PrivacyFlow, PrivacyHost)),
		number("privacy.epsilon", func(c *Config) *float64 { return &c.Privacy.Epsilon }, 0.01, 1000),
		number("privacy.delta", func(c *Config) *float64 { return &c.Privacy.Delta }, 1e-12, 0.01),
		number("privacy.clip", func(c *Config) *float64 { return &c.Privacy.Clip }, 0.001, 100),
		number("privacy.noise", func(c *Config) *float64 { return &c.Privacy.Noise }, 0.1, 1000),
		list("feeds.warning_lists", func(c *Config) *[]string { return &c.Feeds.WarningLists }, absolute),
		list("feeds.ignore_warnings", func(c *Config) *[]string { return &c.Feeds.IgnoreWarnings }, label),
		whole("feeds.max_entries", func(c *Config) *int { return &c.Feeds.MaxEntries }, 1000, 10_000_000),
		{"store.max_bytes", "a size as a string", setSize},
		duration("store.keep_events", func(c *Config) *time.Duration { return &c.Store.KeepEvents }, time.Hour, 3650*day),
		duration("store.keep_flows", func(c *Config) *time.Duration { return &c.Store.KeepFlows }, time.Minute, 3650*day),
		text("telemetry.metrics", func(c *Config) *string { return &c.Telemetry.Metrics }, checkListen),
		{"telemetry.log", "a string", setLevel},
		text("telemetry.log_format", func(c *Config) *string { return &c.Telemetry.LogFormat }, oneOf(LogText, LogJSON)),
		flag("telemetry.taxii", func(c *Config) *bool { return &c.Telemetry.Taxii }),
		text("telemetry.taxii_file", func(c *Config) *string { return &c.Telemetry.TaxiiFile }, orEmpty(checkPath)),
	}
}

// peerFields is every key of [[mesh.peer]].
func peerFields() []field[Peer] {
	return []field[Peer]{
		text("name", func(p *Peer) *string { return &p.Name }, checkName),
		text("id", func(p *Peer) *string { return &p.ID }, checkID),
		list("addrs", func(p *Peer) *[]string { return &p.Addrs }, multiaddr),
	}
}

func fieldByKey(key string) (field[Config], bool) {
	for _, f := range fields() {
		if f.key == key {
			return f, true
		}
	}
	return field[Config]{}, false
}

func peerField(key string) (field[Peer], bool) {
	for _, f := range peerFields() {
		if f.key == key {
			return f, true
		}
	}
	return field[Peer]{}, false
}

func isSection(key string) bool {
	for _, s := range sections {
		if s == key {
			return true
		}
	}
	return false
}

// knownKeys lists every key and table outside [[mesh.peer]].
func knownKeys() []string {
	keys := append([]string{"mesh.peer", "feed", "dataplane.attach"}, sections...)
	for _, f := range fields() {
		keys = append(keys, f.key)
	}
	sort.Strings(keys)
	return keys
}

func peerKeys() []string {
	var keys []string
	for _, f := range peerFields() {
		keys = append(keys, f.key)
	}
	return keys
}

func text[T any](key string, at func(*T) *string, check func(string) error) field[T] {
	return field[T]{key, "a string", func(t *T, v any) error {
		s, ok := v.(string)
		if !ok {
			return mismatch(v, "a string")
		}
		if err := check(s); err != nil {
			return err
		}
		*at(t) = s
		return nil
	}}
}

func flag[T any](key string, at func(*T) *bool) field[T] {
	return field[T]{key, "true or false", func(c *T, v any) error {
		b, ok := v.(bool)
		if !ok {
			return mismatch(v, "true or false")
		}
		*at(c) = b
		return nil
	}}
}

func whole[T any, N int | uint32 | uint64](key string, at func(*T) *N, lo, hi int64) field[T] {
	expect := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	return field[T]{key, expect, func(c *T, v any) error {
		n, ok := v.(int64)
		if !ok || n < lo || n > hi {
			return mismatch(v, expect)
		}
		*at(c) = N(n)
		return nil
	}}
}

func number[T any](key string, at func(*T) *float64, lo, hi float64) field[T] {
	expect := fmt.Sprintf("a number from %g to %g", lo, hi)
	return field[T]{key, expect, func(c *T, v any) error {
		f, ok := v.(float64)
		if n, isInt := v.(int64); isInt {
			f, ok = float64(n), true
		}
		if !ok || math.IsNaN(f) || f < lo || f > hi {
			return mismatch(v, expect)
		}
		*at(c) = f
		return nil
	}}
}

func duration[T any](key string, at func(*T) *time.Duration, lo, hi time.Duration) field[T] {
	expect := fmt.Sprintf("a duration from %s to %s as a string", FormatDuration(lo), FormatDuration(hi))
	return field[T]{key, expect, func(c *T, v any) error {
		s, ok := v.(string)
		if !ok {
			return mismatch(v, expect)
		}
		d, err := ParseDuration(s)
		if err != nil {
			return err
		}
		if d < lo || d > hi {
			return mismatch(v, expect)
		}
		*at(c) = d
		return nil
	}}
}

// maxList bounds a list's length; nothing that a person writes comes near.
const maxList = 4096

func list[T, E any](key string, at func(*T) *[]E, parse func(string) (E, error)) field[T] {
	return field[T]{key, "a list of strings", func(t *T, v any) error {
		items, ok := v.([]any)
		if !ok || len(items) > maxList {
			return mismatch(v, fmt.Sprintf("a list of at most %d strings", maxList))
		}
		out := make([]E, 0, len(items))
		for _, item := range items {
			s, ok := item.(string)
			if !ok {
				return mismatch(item, "strings in the list")
			}
			e, err := parse(s)
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		*at(t) = out
		return nil
	}}
}

func mismatch(v any, expect string) error {
	switch x := v.(type) {
	case string:
		return fmt.Errorf("found %q: expected %s", x, expect)
	case map[string]any:
		return fmt.Errorf("found a table: expected %s", expect)
	case []any:
		return fmt.Errorf("found a list of %d: expected %s", len(x), expect)
	}
	return fmt.Errorf("found %v: expected %s", v, expect)
}

func multiaddr(s string) (string, error) { return s, checkMultiaddr(s) }

func orEmpty(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		for _, w := range words {
			if s == w {
				return nil
			}
		}
		return fmt.Errorf("found %q: expected one of %s", s, strings.Join(words, ", "))
	}
}

func setMode(c *Config, v any) error {
	switch v {
	case "monitor":
		c.Dataplane.Mode = dataplane.Monitor
	case "enforce":
		c.Dataplane.Mode = dataplane.Enforce
	default:
		return mismatch(v, "\"monitor\" or \"enforce\"")
	}
	return nil
}

func setSize(c *Config, v any) error {
	const expect = "a size from 64MiB to 16TiB as a string"
	s, ok := v.(string)
	if !ok {
		return mismatch(v, expect)
	}
	n, err := ParseSize(s)
	if err != nil {
		return err
	}
	if n < 64<<20 || n > 16<<40 {
		return mismatch(v, expect)
	}
	c.Store.MaxBytes = n
	return nil
}

func setLevel(c *Config, v any) error {
	levels := map[any]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	if s, ok := v.(string); ok {
		if l, known := levels[s]; known {
			c.Telemetry.Log = l
			return nil
		}
	}
	return mismatch(v, "one of debug, info, warn, error")
}
