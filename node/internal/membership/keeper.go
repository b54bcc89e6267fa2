package membership

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// ErrChanged says that the sites which are trusted directly have changed: what was
// built on them must be built anew.
var ErrChanged = errors.New("membership has changed")

// Times of the keeper.
const (
	lookEvery  = time.Second // at the folder, and at who is connected
	pullEvery  = 15 * time.Second
	renewEvery = time.Hour
	pullWithin = 10 * time.Second
	protocol   = "roster"
)

// Mesh is a transport whose roster can change and that answers requests besides the
// member's.
type Mesh interface {
	Peers() []federation.PeerInfo
	SetRoster([]federation.Site) error
	Handle(name string, f func(ctx context.Context, from identity.ID, b []byte) ([]byte, error))
	Call(ctx context.Context, name string, to identity.ID, b []byte) ([]byte, error)
}

// KeeperOptions configure a Keeper. Folder and Log are required.
type KeeperOptions struct {
	Folder *Folder
	Mesh   Mesh              // nil: the site is alone, and the folder is only watched
	Fixed  []federation.Site // trusted directly by the configuration, always in the roster
	Pass   identity.Secret   // of the organisation's key; without it a locked one renews nothing
	Log    *slog.Logger
	Now    func() time.Time
	// Told gets who is in the consortium whenever the roster has changed. It does
	// not call the keeper.
	Told func(federation.Roll)
	// LookEvery is how often the folder and the connections are looked at (1 s).
	LookEvery time.Duration
}

// A Keeper holds a running site to its papers: it exchanges the roster with the
// consortium's other sites, cuts off who is revoked, renews certificates, and
// notices what the commands write.
type Keeper struct {
	o     KeeperOptions
	poked chan identity.ID // sites that have news

	mu      sync.Mutex
	s       *State
	stamp   string
	changed bool // our own sites are others than at the start, or rounds can begin
	begun   bool // there were founders at the start

	work sync.WaitGroup // hints on their way
}

// NewKeeper reads the folder, hands the roster to the mesh and answers others'
// questions from then on.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.LookEvery = cmp.Or(o.LookEvery, lookEvery)
	k := &Keeper{o: o, poked: make(chan identity.ID, 64), stamp: o.Folder.Stamp()}
	s, err := o.Folder.Load(o.Now())
	if err != nil {
		return nil, err
	}
	k.s, k.begun = s, s.Founders() != nil
	if o.Mesh == nil {
		return k, nil
	}
	if err := k.enrol(); err != nil {
		return nil, err
	}
	o.Mesh.Handle(protocol, k.serve)
	return k, nil
}

// enrol hands the present roster to the mesh. k.mu is held, or nobody else knows k.
func (k *Keeper) enrol() error {
	roll := k.s.Roll(k.o.Now())
	err := k.o.Mesh.SetRoster(Merge(k.o.Fixed, k.s.Own(), roll.Others))
	if err == nil && k.o.Told != nil {
		k.o.Told(roll)
	}
	return err
}

// Merge joins lists of sites; of two entries with one id the first stands.
func Merge(lists ...[]federation.Site) (out []federation.Site) {
	for _, list := range lists {
		for _, x := range list {
			if !slices.ContainsFunc(out, func(y federation.Site) bool { return y.ID == x.ID }) {
				out = append(out, x)
			}
		}
	}
	return out
}

// serve answers what another site asks; an empty question is a hint that it has news.
func (k *Keeper) serve(_ context.Context, from identity.ID, b []byte) ([]byte, error) {
	if len(b) == 0 {
		select {
		case k.poked <- from:
		default: // the next pull brings it
		}
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.s.Directory == nil {
		return nil, ErrNoConsortium
	}
	return k.s.Directory.Answer(b, k.o.Now())
}

// Run keeps the papers until ctx ends. It returns ErrChanged when the sites that are
// trusted directly have changed, the site has come to be in a consortium, or so many
// organisations count that rounds can begin.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer k.work.Wait() // after cancel
	defer cancel()
	tick := time.NewTicker(k.o.LookEvery)
	defer tick.Stop()
	var pulled, renewed time.Time
	known := make(map[identity.ID]bool)
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-k.poked:
			k.pull(ctx, id)
			continue
		case <-tick.C:
		}
		if err := k.look(ctx); err != nil {
			return err
		}
		now := k.o.Now()
		if now.Sub(renewed) >= renewEvery {
			renewed = now
			k.renew(ctx)
		}
		up := k.connected()
		for id := range known {
			if !slices.Contains(up, id) {
				delete(known, id)
			}
		}
		for _, id := range up {
			if !known[id] {
				known[id] = true
				k.pull(ctx, id)
			}
		}
		if len(up) > 0 && now.Sub(pulled) >= pullEvery {
			pulled = now
			k.pull(ctx, up[rand.IntN(len(up))])
		}
	}
}

func (k *Keeper) connected() (out []identity.ID) {
	if k.o.Mesh == nil {
		return nil
	}
	for _, p := range k.o.Mesh.Peers() {
		if p.Connected {
			out = append(out, p.ID)
		}
	}
	return out
}

// look reads the folder anew when somebody else has written it.
func (k *Keeper) look(ctx context.Context) error {
	stamp := k.o.Folder.Stamp()
	k.mu.Lock()
	same, changed := stamp == k.stamp, k.changed
	k.mu.Unlock()
	if changed {
		return ErrChanged
	}
	if same {
		return nil
	}
	s, err := k.o.Folder.Load(k.o.Now())
	if err != nil {
		k.o.Log.Error("the membership cannot be read; what was known stays in force", "error", err)
		k.mu.Lock()
		k.stamp = stamp
		k.mu.Unlock()
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	begins := !k.begun && s.Founders() != nil
	if begins || !slices.EqualFunc(s.Own(), k.s.Own(), sameSite) || (s.Directory == nil) != (k.s.Directory == nil) {
		return ErrChanged
	}
	k.s, k.stamp = s, stamp
	if k.o.Mesh == nil {
		return nil
	}
	if err := k.enrol(); err != nil {
		return err
	}
	k.tell(ctx)
	return nil
}

func sameSite(a, b federation.Site) bool {
	return a.ID == b.ID && a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs)
}

// tell hints to every connected site that we have news. k.mu is held.
func (k *Keeper) tell(ctx context.Context) {
	if k.s.Directory == nil {
		return
	}
	for _, id := range k.connected() {
		k.work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, pullWithin)
			defer cancel()
			_, _ = k.o.Mesh.Call(ctx, protocol, id, nil) // a hint that is lost costs a quarter of a minute
		})
	}
}

// pull asks a site for what we lack, until there is no more.
func (k *Keeper) pull(ctx context.Context, id identity.ID) {
	for more := true; more; {
		k.mu.Lock()
		d := k.s.Directory
		var q []byte
		var err error
		if d != nil {
			q, err = d.Ask(k.o.Now())
		}
		k.mu.Unlock()
		if d == nil || err != nil {
			return
		}
		within, cancel := context.WithTimeout(ctx, pullWithin)
		b, err := k.o.Mesh.Call(within, protocol, id, q)
		cancel()
		if err != nil {
			k.o.Log.Debug("a site did not tell its roster; another one will", "id", string(id), "error", err)
			return
		}
		if more, err = k.learn(ctx, b); err != nil && ctx.Err() == nil {
			k.o.Log.Warn("a site's roster was not taken over", "id", string(id), "error", err)
			return
		}
	}
}

// learn takes an answer over, first in memory and, when it brought news, on disk.
func (k *Keeper) learn(ctx context.Context, b []byte) (more bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Now()
	l, err := k.s.Directory.Learn(b, now)
	if !l.Any() {
		return false, err
	}
	fail := err
	own := k.s.Own()
	err = k.o.Folder.Update(now, func(s *State) error {
		if s.Directory != nil {
			_, _ = s.Directory.Learn(b, now) // judged above
		}
		k.s = s
		return nil
	})
	k.stamp = k.o.Folder.Stamp()
	if err != nil {
		return false, errors.Join(fail, err)
	}
	k.changed = k.changed || !slices.EqualFunc(own, k.s.Own(), sameSite) || (!k.begun && k.s.Founders() != nil)
	if err := k.enrol(); err != nil {
		return false, err
	}
	k.tell(ctx)
	return l.More, fail
}

// renew certifies our sites anew in time, where the organisation's key is at hand.
func (k *Keeper) renew(ctx context.Context) {
	now := k.o.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.s.Directory == nil {
		return
	}
	key, err := k.o.Folder.organisationKey(k.s, k.o.Pass)
	if err != nil {
		k.warnOfEnd(err, now)
		return
	}
	n := 0
	err = k.o.Folder.Update(now, func(s *State) (err error) {
		if n, err = s.RenewSites(key, now); err == nil && n == 0 {
			return errNothing
		}
		k.s = s
		return err
	})
	if errors.Is(err, errNothing) {
		return
	}
	k.stamp = k.o.Folder.Stamp()
	if err != nil {
		k.o.Log.Error("certificates could not be renewed", "error", err)
		return
	}
	k.o.Log.Info("certificates of our sites were renewed", "sites", n)
	k.tell(ctx)
}

var errNothing = errors.New("nothing to do")

// warnOfEnd says when our own certificate ends soon and cannot be renewed here.
func (k *Keeper) warnOfEnd(err error, now time.Time) {
	if k.s.Site != nil && k.s.Site.NotAfter.Sub(now) < siteLife/4 {
		k.o.Log.Warn("this site's certificate ends soon, and the organisation's key is not here: start a site that has it, or `hedgerow consortium rotate site` there",
			"ends", k.s.Site.NotAfter.Format(time.RFC3339), "error", err)
	}
}
