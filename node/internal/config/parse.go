package config

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds what is read: a configuration is a page, not a book.
const maxFile = 1 << 20

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Line int    // from 1; 0 when it belongs to no line
	Key  string // dotted, "" for the file as a whole
	Text string // what was found, what was expected
}

// Error is every problem of one file.
type Error struct {
	Name     string
	Problems []Problem
}

// Error prints one problem a line, as "name:line: key: text".
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		s := e.Name
		if p.Line > 0 {
			s += fmt.Sprintf(":%d", p.Line)
		}
		if p.Key != "" {
			s += ": " + p.Key
		}
		lines = append(lines, s+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// Parse reads a configuration over the defaults. name stands in the errors,
// usually the file's path. The error, when there is one, is an *Error with
// every problem of the file, or names why r could not be read.
func Parse(r io.Reader, name string) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %v", name, err)
	}
	p := &parser{cfg: Default(), err: &Error{Name: name}}
	if len(b) > maxFile {
		p.problem("", "is larger than 1 MiB: expected a configuration file of hedgerow")
		return nil, p.err
	}
	tree := map[string]any{}
	if err := toml.Unmarshal(b, &tree); err != nil {
		p.syntax(err)
		return nil, p.err
	}
	p.lines = keyLines(b)
	p.table("", tree)
	p.cross()
	if len(p.err.Problems) > 0 {
		sort.SliceStable(p.err.Problems, func(i, j int) bool { return p.err.Problems[i].Line < p.err.Problems[j].Line })
		return nil, p.err
	}
	return &p.cfg, nil
}

type parser struct {
	cfg   Config
	lines map[string]int
	err   *Error
}

func (p *parser) problem(key, format string, args ...any) {
	p.err.Problems = append(p.err.Problems, Problem{Line: p.lines[key], Key: indexless(key), Text: fmt.Sprintf(format, args...)})
}

// indexless turns mesh.peer[1].id, the internal name, into itself with the
// position counted from 1, as people count.
func indexless(key string) string {
	head, tail, ok := strings.Cut(key, "[")
	if !ok {
		return key
	}
	num, rest, _ := strings.Cut(tail, "]")
	var n int
	if _, err := fmt.Sscanf(num, "%d", &n); err != nil {
		return key
	}
	return fmt.Sprintf("%s #%d%s", head, n+1, rest)
}

func (p *parser) syntax(err error) {
	var de *toml.DecodeError
	line, text := 0, err.Error()
	if errors.As(err, &de) {
		line, _ = de.Position()
	}
	text = strings.TrimPrefix(text, "toml: ")
	p.err.Problems = append(p.err.Problems, Problem{Line: line, Text: "not valid TOML: " + text})
}

// table walks one table; prefix ends in a dot unless it is the root.
func (p *parser) table(prefix string, t map[string]any) {
	for _, k := range sortedKeys(t) {
		key := prefix + k
		switch sub, isTable := t[k].(map[string]any); {
		case isTable && isSection(key):
			p.table(key+".", sub)
		case isSection(key):
			p.problem(key, "%s", mismatch(t[k], "a table, ["+key+"]"))
		case key == "mesh.peer":
			p.peers(t[k])
		case key == "dataplane.attach":
			p.attachments(t[k])
		case key == "feed":
			p.feeds(t[k])
		default:
			p.set(key, t[k])
		}
	}
}

func (p *parser) set(key string, v any) {
	f, ok := fieldByKey(key)
	if !ok {
		p.problem(key, "is not a known key%s", nearest(key, knownKeys()))
		return
	}
	if isTableValue(v) {
		p.problem(key, "found a table: expected %s", f.expect)
		return
	}
	if err := f.set(&p.cfg, v); err != nil {
		p.problem(key, "%s", err)
	}
}

func isTableValue(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

func (p *parser) peers(v any) {
	list, ok := v.([]any)
	if !ok {
		p.problem("mesh.peer", "expected [[mesh.peer]] tables, one for each other site")
		return
	}
	for i, item := range list {
		key := fmt.Sprintf("mesh.peer[%d]", i)
		t, ok := item.(map[string]any)
		if !ok {
			p.problem(key, "expected a [[mesh.peer]] table")
			continue
		}
		p.peer(key, t)
	}
}

func (p *parser) peer(key string, t map[string]any) {
	var peer Peer
	for _, k := range sortedKeys(t) {
		f, ok := peerField(k)
		if !ok {
			p.problem(key+"."+k, "is not a known key%s", nearest(k, peerKeys()))
			continue
		}
		if err := f.set(&peer, t[k]); err != nil {
			p.problem(key+"."+k, "%s", err)
		}
	}
	for _, k := range []string{"name", "id"} {
		if _, ok := t[k]; !ok {
			p.problem(key, "%s is required", k)
		}
	}
	p.cfg.Mesh.Peers = append(p.cfg.Mesh.Peers, peer)
}

// cross checks what one value says about another.
func (p *parser) cross() {
	c := &p.cfg
	if c.Policy.Block < c.Policy.Suspend {
		p.problem("policy.block", "found %q: expected at least policy.suspend, %s",
			FormatDuration(c.Policy.Block), FormatDuration(c.Policy.Suspend))
	}
	if c.Mesh.Gather >= c.Mesh.RoundEvery {
		p.problem("mesh.gather", "found %q: expected less than mesh.round_every, %s",
			FormatDuration(c.Mesh.Gather), FormatDuration(c.Mesh.RoundEvery))
	}
	if c.Telemetry.Taxii && c.Telemetry.Metrics == "" {
		p.problem("telemetry.taxii", "found true without telemetry.metrics: expected the address at which it is served")
	}
	p.crossFeeds()
	p.crossFlood()
	p.crossAttach()
	if len(c.Mesh.Peers) > 0 && c.Mesh.Organisation == "" {
		p.problem("mesh.organisation", "is required when there are [[mesh.peer]] tables: expected the name that all these sites share")
	}
	if c.Dataplane.Mode == 1 && c.Dataplane.Plane == PlaneNone {
		p.problem("dataplane.mode", "found \"enforce\" with plane \"none\": expected a plane that can enforce, or mode \"monitor\"")
	}
	names, ids := map[string]bool{c.Site.Name: true}, map[string]bool{}
	for i, peer := range c.Mesh.Peers {
		key := fmt.Sprintf("mesh.peer[%d]", i)
		if peer.Name != "" && names[peer.Name] {
			p.problem(key+".name", "found %q again: expected a name of its own for each site", peer.Name)
		}
		if peer.ID != "" && ids[peer.ID] {
			p.problem(key+".id", "found the identity of another peer: expected one of its own for each site")
		}
		names[peer.Name], ids[peer.ID] = true, true
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
