package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
)

// tuned is a site that only remembers how it was tuned.
type tuned struct {
	last  node.Tuning
	times int
	err   error
}

func (x *tuned) Tune(t node.Tuning) error {
	if x.err == nil {
		x.last, x.times = t, x.times+1
	}
	return x.err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestRereadNamesWhatItTakesAndWhatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	write(t, path, "[dataplane]\nmax_flows = 2048\n")
	r, err := newRereader(path, func(c *config.Config) error { c.Site.Name = "alder"; return nil })
	must(t, err)
	site := &tuned{}
	r.node = site
	same := api.Reloaded{Path: path, Taken: []string{}, Restart: []string{}}
	if got, err := r.reread(); err != nil || !reflect.DeepEqual(got, same) || got.Words() != path+": nothing has changed" {
		t.Errorf("the same file: %+v, %v", got, err)
	}
	write(t, path, "[dataplane]\nmax_flows = 4096\nnever_block = [\"192.0.2.1\"]\n[policy]\nmax_blocks_per_hour = 0\nmax_share = 0\n[telemetry]\nlog = \"debug\"\n[[feed]]\nname = \"a\"\npath = \"/a\"\n")
	got, err := r.reread()
	want := []string{"dataplane.never_block", "policy.max_blocks_per_hour", "policy.max_share", "feed", "telemetry.log"}
	slices.Sort(got.Taken)
	slices.Sort(want)
	if err != nil || !slices.Equal(got.Taken, want) || !slices.Equal(got.Restart, []string{"dataplane.max_flows"}) {
		t.Errorf("another file: %+v, %v", got, err)
	}
	if p := site.last.Policy; len(site.last.Spared) != 1 || len(site.last.Feeds.Feeds) != 1 || p.MaxBlocksPerHour >= 0 || !(p.MaxShare > 0 && p.MaxShare < 1e-9) || r.level.Level() != -4 {
		t.Errorf("tuned to %+v, level %v", site.last, r.level.Level())
	}
	// What waits is told again, what was taken is not.
	if got, err = r.reread(); err != nil || len(got.Taken) != 0 || !slices.Equal(got.Restart, []string{"dataplane.max_flows"}) {
		t.Errorf("again: %+v, %v", got, err)
	}

	times := site.times
	write(t, path, "[policy]\nsuspnd = \"2s\"\n[[feed]]\nname = \"a\"\nevery = \"1s\"\npath = \"/a\"\n")
	if _, err = r.reread(); err == nil || site.times != times || !strings.Contains(err.Error(), "policy.suspnd: is not a known key: did you mean policy.suspend?") || !strings.Contains(err.Error(), "feed #1.every: found \"1s\"") {
		t.Errorf("a broken file: %v, tuned %d times", err, site.times-times)
	}
	must(t, os.Remove(path))
	if _, err = r.reread(); err == nil || site.times != times {
		t.Errorf("no file: %v, tuned %d times", err, site.times-times)
	}
	write(t, path, "[policy]\nsuspend = \"2s\"\n")
	site.err = errors.New("flood: too much")
	if _, err = r.reread(); err == nil || !strings.Contains(err.Error(), "flood: too much") {
		t.Errorf("refused by the site: %v", err)
	}
	site.err = nil
	if got, err = r.reread(); err != nil || !slices.Contains(got.Taken, "policy.suspend") {
		t.Errorf("not refused any more: %+v, %v", got, err)
	}
}

// A site that runs without a file does not take the defaults for a change of mind.
func TestRereadOfAFileThatIsGone(t *testing.T) {
	r := &rereader{from: defaultConfig, flags: func(*config.Config) error { return nil }, node: &tuned{}}
	if _, err := os.Stat(defaultConfig); err == nil {
		t.Skip("this machine has a configuration")
	}
	if _, err := r.reread(); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("found %v", err)
	}
}

// Exactly the live keys reach a running site.
func TestLiveKeysAreThoseOfTheTuning(t *testing.T) {
	d := config.Default()
	seen := []string{"telemetry.log"} // which reaches the log by itself
	for i := range reflect.TypeFor[config.Config]().NumField() {
		for j := range reflect.TypeFor[config.Config]().Field(i).Type.NumField() {
			one := config.Default()
			differ(t, reflect.ValueOf(&one).Elem().Field(i).Field(j))
			changed := config.Changed(&d, &one)
			if len(changed) != 1 {
				t.Fatalf("one value changed, found keys %q", changed)
			}
			was, is := tuning(&d), tuning(&one)
			was.Feeds.Dir, is.Feeds.Dir = "", ""             // follows the state folder
			was.Feeds.MaxEntries, is.Feeds.MaxEntries = 0, 0 // sizes the kernel's tables
			if !reflect.DeepEqual(was, is) {
				seen = append(seen, changed[0])
			}
		}
	}
	live := liveKeys()
	slices.Sort(live)
	slices.Sort(seen)
	if !slices.Equal(live, seen) {
		t.Errorf("live keys are\n%q, those that reach a site\n%q", live, seen)
	}
}

// differ gives a value another one.
func differ(t *testing.T, v reflect.Value) {
	t.Helper()
	switch {
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.CanUint():
		v.SetUint(v.Uint() + 1)
	case v.CanFloat():
		v.SetFloat(v.Float() + 1)
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.Kind() == reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	default:
		t.Fatalf("no other value of %s", v.Type())
	}
}
