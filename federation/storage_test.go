package federation_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
)

// broken is a storage whose disk is full for keys with a prefix.
type broken struct {
	federation.MemoryStorage
	prefix atomic.Pointer[string] // the member reads it on a goroutine of its own
}

func (b *broken) fail(prefix string) { b.prefix.Store(&prefix) }

var errFull = errors.New("disk full")

func (b *broken) Save(key string, v []byte) error {
	if p := b.prefix.Load(); p != nil && *p != "" && strings.HasPrefix(key, *p) {
		return errFull
	}
	return b.MemoryStorage.Save(key, v)
}

// TestNothingIsSentThatIsNotStored: what we would not remember, nobody hears.
func TestNothingIsSentThatIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := new(broken)
		w := newWorld(t, 2, lan, func(o *federation.Options) {
			if o.Site == "site0" {
				o.Storage = disk
			}
		})
		defer w.close()
		pass(5 * time.Second)
		for _, prefix := range []string{"federation/seq", "federation/own"} {
			disk.fail(prefix)
			if _, err := w.sites[0].Publish(t.Context(), indicator("203.0.113.1")); !errors.Is(err, errFull) {
				t.Errorf("publish without %s: %v, expected the disk's error", prefix, err)
			}
			pass(time.Second)
			if n := len(w.sites[1].events()); n != 0 {
				t.Errorf("%d indicators left without %s", n, prefix)
			}
		}
		pass(2 * time.Minute) // nor does a pull bring it
		if n := len(w.sites[1].events()); n != 0 {
			t.Errorf("%d indicators were pulled that are not stored", n)
		}
		disk.fail("")
		until(t, 2*time.Minute, "it arrives once it is stored", func() bool { return len(w.sites[1].events()) == 1 })
		disk.fail("federation/round")
		if _, err := w.sites[1].StartRound(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		if d := w.sites[1].Status().Deltas; d != 1 {
			t.Errorf("site1 holds %d deltas, expected only its own", d)
		}
		disk.fail("")
		until(t, 2*time.Minute, "the round ends once the disk is back", func() bool { return w.at(1) })
		w.oneHash(t)
	})
}
