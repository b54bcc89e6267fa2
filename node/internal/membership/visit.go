package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/crypto/roster"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// MeshOfVisits is the organisation's name of transports that carry one visit: it
// separates them from every real mesh.
const MeshOfVisits = "visit"

const (
	kindVisit  = "visit"
	partOfLog  = 512 << 10 // of a log, in a welcome; the rest comes by the daily exchange
	visitAgain = 200 * time.Millisecond
)

// A visit is what the guest brings: whom it stands for, and proof of that.
type visit struct {
	Version uint8    `cbor:"1,keyasint"`
	Bye     bool     `cbor:"2,keyasint"` // the welcome has arrived
	Name    string   `cbor:"3,keyasint"`
	Site    string   `cbor:"4,keyasint"`
	Addrs   []string `cbor:"5,keyasint,omitempty"`
	Proof   []byte   `cbor:"6,keyasint,omitempty"` // the site's signature on guest and inviter
	Consent []byte   `cbor:"7,keyasint,omitempty"` // for a site: to the organisation's root
	Cert    []byte   `cbor:"8,keyasint,omitempty"` // for an organisation
	Paper   []byte   `cbor:"9,keyasint,omitempty"` // its site's certificate
}

// A welcome is what it takes home.
type welcome struct {
	Version      uint8        `cbor:"1,keyasint"`
	Refused      string       `cbor:"2,keyasint,omitempty"`
	Organisation string       `cbor:"3,keyasint"`
	Peers        []storedPeer `cbor:"4,keyasint,omitempty"`
	Cert         []byte       `cbor:"5,keyasint,omitempty"`
	Paper        []byte       `cbor:"6,keyasint,omitempty"`
	Log          []byte       `cbor:"7,keyasint,omitempty"`
	Sites        [][]byte     `cbor:"8,keyasint,omitempty"`
	Applied      bool         `cbor:"9,keyasint"`
}

// proofOf is what the joining site signs: this guest of this inviter, and no other.
func proofOf(t *Token) []byte { return []byte(string(t.guest.ID()) + "\x00" + string(t.Inviter)) }

// host receives one guest.
type host struct {
	f     *Folder
	us    Us
	token *Token
	now   func() time.Time

	mu      sync.Mutex
	who     identity.ID // who has come
	name    string
	answer  []byte
	applied bool
	gone    chan struct{} // closed when the guest has its welcome
	left    bool
}

// Receive refuses every broadcast: a guest has one request.
func (h *host) Receive(context.Context, federation.Topic, identity.ID, []byte) federation.Verdict {
	return federation.Reject
}

// PeerChanged is of no interest here.
func (h *host) PeerChanged(federation.PeerInfo) {}

// Serve answers the guest. The same site may ask again when an answer was lost;
// another one finds the invitation used.
func (h *host) Serve(_ context.Context, from identity.ID, b []byte) ([]byte, error) {
	var v visit
	if err := canon.Unmarshal(b, &v); err != nil || v.Version != 1 || from != h.token.guest.ID() {
		return nil, fmt.Errorf("visit of %s: not understood", from.Short())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	site := identity.ID(v.Site)
	if err := identity.Verify(site, kindVisit, proofOf(h.token), v.Proof); err != nil {
		return refusal(err)
	}
	switch {
	case h.who != "" && h.who != site:
		return refusal(errors.New("the invitation was used already"))
	case v.Bye && h.who == site:
		if !h.left {
			h.left = true
			close(h.gone)
		}
		return canon.Marshal(welcome{Version: 1})
	case h.who == site:
		return h.answer, nil
	}
	w, err := h.receive(&v, site)
	if err != nil {
		return refusal(err)
	}
	if h.answer, err = canon.Marshal(w); err != nil {
		return nil, err
	}
	h.who, h.name, h.applied = site, v.Name, w.Applied
	return h.answer, nil
}

func refusal(err error) ([]byte, error) {
	return canon.Marshal(welcome{Version: 1, Refused: fmt.Sprintf("%.400v", err)})
}

// receive takes the guest up in our papers.
func (h *host) receive(v *visit, site identity.ID) (w *welcome, err error) {
	if err := errors.Join(identity.CheckName(v.Name), identity.CheckAddrs(v.Addrs)); err != nil {
		return nil, err
	}
	now := h.now()
	if now.After(h.token.Expires) {
		return nil, ErrInvited
	}
	err = h.f.Update(now, func(s *State) error {
		if h.token.Kind == ForSite {
			w, err = h.receiveSite(s, v, site, now)
		} else {
			w, err = h.receiveOrganisation(s, v, now)
		}
		return err
	})
	return w, err
}

// receiveSite lists a site of our own organisation, and certifies it where the
// organisation's key is at hand.
func (h *host) receiveSite(s *State, v *visit, site identity.ID, now time.Time) (*welcome, error) {
	if s.Organisation == "" {
		s.Organisation = h.token.Organisation
	}
	us := storedPeer{h.us.Name, string(h.us.Key.ID()), h.us.Addrs}
	w := &welcome{Version: 1, Organisation: s.Organisation, Peers: append(toStored(s.Peers), us), Applied: true}
	if v.Name == h.us.Name {
		return nil, fmt.Errorf("this site is named %s itself: choose another name by --name", v.Name)
	}
	if err := s.addPeer(federation.Site{Name: v.Name, ID: site, Addrs: v.Addrs}); err != nil {
		return nil, err
	}
	if s.Certificate == nil {
		return w, nil
	}
	key, err := h.f.organisationKey(s, h.us.Pass)
	if err != nil {
		return nil, err
	}
	c, err := s.issue(key, v.Name, site, v.Addrs, v.Consent, 0, now)
	if err != nil {
		return nil, err
	}
	if err := c.By(s.Certificate); err != nil {
		return nil, err
	}
	w.Cert, w.Paper = s.Certificate.Raw, c.Raw
	if s.Directory != nil {
		if _, err := s.Directory.AddSite(c.Raw, now); err != nil {
			return nil, err
		}
	}
	return w, s.writeRoster(w, now)
}

// receiveOrganisation proposes another organisation's admission, as an observer.
func (h *host) receiveOrganisation(s *State, v *visit, now time.Time) (*welcome, error) {
	o, err := identity.ParseOrganisation(v.Cert)
	if err != nil {
		return nil, err
	}
	paper, err := identity.ParseSite(v.Paper)
	if err != nil {
		return nil, err
	}
	if err := paper.By(o); err != nil {
		return nil, err
	}
	if o.Name != h.token.Name || string(paper.Site) != v.Site {
		return nil, fmt.Errorf("the invitation is for organisation %s: expected its certificate and this site's", h.token.Name)
	}
	key, err := h.f.organisationKey(s, h.us.Pass)
	if err != nil {
		return nil, err
	}
	out, err := s.propose(&roster.Entry{Kind: roster.Admit, Organisation: o.Name, Cert: o.Raw, Site: paper.Site}, key)
	if err != nil {
		return nil, err
	}
	s.waiting = append(s.waiting, paper.Raw)
	s.admitWaiting(now)
	w := &welcome{Version: 1, Organisation: s.Organisation, Applied: out.Applied}
	return w, s.writeRoster(w, now)
}

// writeRoster adds what we know of the consortium to a welcome.
func (s *State) writeRoster(w *welcome, now time.Time) error {
	if s.Directory == nil {
		return nil
	}
	var buf bytes.Buffer
	if _, err := s.Directory.Log().WritePart(&buf, partOfLog); err != nil {
		return err
	}
	w.Log = buf.Bytes()
	size := 0
	for _, r := range s.Directory.Records(now) {
		if size += len(r.Raw); size > partOfLog/2 {
			break
		}
		w.Sites = append(w.Sites, r.Raw)
	}
	return nil
}

// Welcome waits for the guest of a token on a transport whose roster is that guest,
// takes it up and returns its name. applied is false when an organisation's
// admission still waits for signatures. It ends with ctx, or when the invitation does.
func (f *Folder) Welcome(ctx context.Context, tr federation.Transport, u Us, t *Token, now func() time.Time) (name string, applied bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.Expires.Sub(now()))
	defer cancel()
	h := &host{f: f, us: u, token: t, now: now, gone: make(chan struct{})}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- tr.Run(running, h) }()
	select {
	case <-h.gone:
	case <-ctx.Done():
	case err := <-done:
		return "", false, fmt.Errorf("invitation: %w", errors.Join(err, ctx.Err()))
	}
	stop()
	err = <-done
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.who == "" {
		return "", false, errors.Join(err, ErrInvited)
	}
	return h.name, h.applied, err
}

// Joined says what a visit led to.
type Joined struct {
	Organisation, Consortium string
	Peers                    []federation.Site
	Applied                  bool // false: an organisation that waits for signatures
}

// Join visits the site of a token on a transport under the guest's key, whose roster
// is that site, and files what it takes home. It tries until ctx ends.
func (f *Folder) Join(ctx context.Context, tr federation.Transport, u Us, t *Token, now time.Time) (out Joined, err error) {
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- tr.Run(running, &host{token: t}) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	err = f.Update(now, func(s *State) error {
		v, err := f.prepare(s, u, t, now)
		if err != nil {
			return err
		}
		w, err := ask(ctx, tr, t.Inviter, v)
		if err != nil {
			return err
		}
		out, err = s.takeHome(f, u, t, w, now)
		return err
	})
	if err != nil {
		return out, err
	}
	// All is filed on both sides: if the farewell is lost, the host only waits longer.
	_, _ = ask(ctx, tr, t.Inviter, &visit{Version: 1, Bye: true, Name: u.Name, Site: string(u.Key.ID()), Proof: u.Key.Sign(kindVisit, proofOf(t))})
	return out, nil
}

// prepare is what we bring.
func (f *Folder) prepare(s *State, u Us, t *Token, now time.Time) (*visit, error) {
	v := &visit{Version: 1, Name: u.Name, Site: string(u.Key.ID()), Addrs: u.Addrs, Proof: u.Key.Sign(kindVisit, proofOf(t))}
	if t.Kind == ForSite {
		if s.Organisation != "" && s.Organisation != t.Organisation {
			return nil, fmt.Errorf("this site is of organisation %s already: a site has one; use a state folder of its own for %s", s.Organisation, t.Organisation)
		}
		if t.Root != "" {
			v.Consent = identity.Consent(u.Key, t.Root)
		}
		return v, nil
	}
	if s.Directory != nil {
		return nil, ErrConsortium
	}
	if err := f.found(s, u, t.Name, now); err != nil {
		return nil, err
	}
	key, err := f.organisationKey(s, u.Pass)
	if err != nil {
		return nil, err
	}
	if err := s.issueOwn(key, u, now); err != nil {
		return nil, err
	}
	v.Cert, v.Paper = s.Certificate.Raw, s.Site.Raw
	return v, nil
}

// ask repeats a request until the connection stands.
func ask(ctx context.Context, tr federation.Transport, to identity.ID, v *visit) (*welcome, error) {
	b, err := canon.Marshal(v)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(visitAgain)
	defer tick.Stop()
	for {
		out, err := tr.Request(ctx, to, b)
		switch {
		case err == nil:
			return readWelcome(out)
		case !errors.Is(err, federation.ErrUnreachable):
			return nil, fmt.Errorf("the inviting site did not answer: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the inviting site was not reached: %w; is `hedgerow consortium invite` still running there, and does its port let you in?", whyNot(tr, err))
		case <-tick.C:
		}
	}
}

// whyNot is the transport's own words about its only peer.
func whyNot(tr federation.Transport, err error) error {
	for _, p := range tr.Peers() {
		if p.Why != "" {
			return errors.New(strings.Join(strings.Fields(p.Why), " "))
		}
	}
	return err
}

func readWelcome(b []byte) (*welcome, error) {
	w := new(welcome)
	if err := canon.Unmarshal(b, w); err != nil || w.Version != 1 {
		return nil, fmt.Errorf("the inviting site's answer is not understood (%v): do both sites have the same version?", err)
	}
	if w.Refused != "" {
		return nil, fmt.Errorf("the inviting site refused: %q", w.Refused)
	}
	return w, nil
}

// takeHome files a welcome.
func (s *State) takeHome(f *Folder, u Us, t *Token, w *welcome, now time.Time) (out Joined, err error) {
	if t.Kind == ForSite {
		peers, err := fromStored(w.Peers)
		if err != nil {
			return out, err
		}
		for _, p := range peers {
			if p.ID == u.Key.ID() {
				continue // they knew us before
			}
			if err := s.addPeer(p); err != nil {
				return out, err
			}
		}
		if !slices.ContainsFunc(peers, func(p federation.Site) bool { return p.ID == t.Inviter }) {
			return out, errors.New("the inviting site did not list itself")
		}
		s.Organisation = t.Organisation
		if err := s.takePapers(u, t, w); err != nil {
			return out, err
		}
	}
	if len(w.Log) > 0 {
		l, err := roster.ReadLog(bytes.NewReader(w.Log), f.conflict)
		if err != nil {
			return out, err
		}
		if l.Roster().Name() != t.Consortium {
			return out, fmt.Errorf("the inviting site's consortium is %q, the token's %q", l.Roster().Name(), t.Consortium)
		}
		s.Directory = roster.NewDirectory(l)
		for _, raw := range w.Sites {
			_, _ = s.Directory.AddSite(raw, now) // what does not hold is left out
		}
		if s.Site != nil {
			s.waiting = append(s.waiting, s.Site.Raw) // admitted now or later
		}
	}
	return Joined{Organisation: s.Organisation, Consortium: t.Consortium, Peers: s.Peers, Applied: w.Applied}, nil
}

// takePapers takes our organisation's certificate and our own, if there are any.
func (s *State) takePapers(u Us, t *Token, w *welcome) (err error) {
	if len(w.Cert) == 0 {
		return nil
	}
	if s.Certificate, err = identity.ParseOrganisation(w.Cert); err != nil {
		return err
	}
	if s.Site, err = identity.ParseSite(w.Paper); err != nil {
		return err
	}
	if s.Certificate.Root != t.Root || s.Site.Site != u.Key.ID() {
		return errors.New("the inviting site sent certificates of others")
	}
	return s.Site.By(s.Certificate)
}
