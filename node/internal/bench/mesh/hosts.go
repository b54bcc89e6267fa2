package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
)

// host is one site's end of the mesh, listening.
type host struct {
	*gossip.Transport
	name, org string
	key       *identity.Key
	roster    []federation.Site // the others, as this site sees them
}

// open makes n hosts that know each other; each dials those before it. With apart,
// each is an organisation of its own, and counts.
func open(n int, apart bool) (hosts []*host, err error) {
	defer func() {
		if err != nil {
			for _, h := range hosts {
				err = errors.Join(err, h.Close())
			}
		}
	}()
	for i := range n {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			return hosts, err
		}
		h := &host{name: fmt.Sprintf("site%02d", i), org: "one", key: k}
		if apart {
			h.name, h.org = "gate", fmt.Sprintf("org%02d", i)
		}
		h.Transport, err = gossip.New(gossip.Options{Key: k, Organisation: h.org, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			return hosts, err
		}
		hosts = append(hosts, h)
	}
	for i, h := range hosts {
		for j, o := range hosts {
			s := federation.Site{Name: o.name, ID: o.key.ID()}
			if apart {
				s.Organisation, s.Standing = o.org, federation.StandingCounted
			}
			if j < i {
				s.Addrs = o.Addrs()
			}
			if i != j {
				h.roster = append(h.roster, s)
			}
		}
		if err := h.SetRoster(h.roster); err != nil {
			return hosts, err
		}
	}
	return hosts, nil
}

// roll is the consortium of hosts that are apart, as h sees it.
func (h *host) roll(hosts []*host) federation.Roll {
	r := federation.Roll{Others: h.roster}
	for _, o := range hosts {
		r.Counted = append(r.Counted, chain.Member{Org: o.org, Voter: o.key.ID()})
	}
	return r
}

// crowd is what runs until it is ended, with what went wrong meanwhile.
type crowd struct {
	ctx  context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup
	mu   sync.Mutex
	err  error
}

func gather(ctx context.Context) *crowd {
	c := new(crowd)
	c.ctx, c.stop = context.WithCancelCause(ctx)
	return c
}

// run is for a site's whole life; who fails ends all.
func (c *crowd) run(name string, f func(context.Context) error) {
	c.work.Go(func() {
		if err := f(c.ctx); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			c.mu.Lock()
			c.err = errors.Join(c.err, err)
			c.mu.Unlock()
			c.stop(err)
		}
	})
}

// end stops all and tells what went wrong.
func (c *crowd) end() error {
	c.stop(nil)
	c.work.Wait()
	return c.err
}

// connected waits until a host is connected with the n that began before it: all
// at once they would turn each other away, as strangers who come in crowds are.
func (h *host) connected(ctx context.Context, n int) error {
	return poll(ctx, h.org+"/"+h.name+" is connected with those before it", func() bool {
		up := 0
		for _, p := range h.Peers() {
			if p.Connected {
				up++
			}
		}
		return up >= n
	})
}
