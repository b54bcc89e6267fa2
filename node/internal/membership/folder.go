// Package membership is a site's papers: which organisation it is of, which other
// sites it trusts directly, and its consortium's roster, kept in one folder below
// the site's state.
//
// Two processes use the folder, the daemon and the commands: whoever changes it
// holds its lock and reads it first (Update). Everything in it is public but the
// key files, which package identity keeps.
//
// A second site of one's own organisation, and another organisation's first, come
// by an invitation: a token that holds the key of a guest. The guest's key is the
// only one that the inviting site lets in, for one visit, so an invitation opens
// nothing to strangers and nothing twice; who wrote the token is proved by the
// connection, and who uses it by the guest's key. See Invite and Join.
package membership

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/crypto/roster"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// Files of the folder.
const (
	RootKey         = "root.key"
	OrganisationKey = "organisation.key"
	stateFile       = "membership"
	LogFile         = "roster.log"
	lockFile        = "lock"
)

// Limits of what is stored.
const (
	maxState = 4 << 20
	maxPeers = 255
)

// Errors that a caller may test for.
var (
	ErrNoConsortium = errors.New("this site is in no consortium: `hedgerow consortium create` founds one, `hedgerow consortium join` joins one")
	ErrConsortium   = errors.New("this site is in a consortium already")
	ErrWaits        = errors.New("signed another entry that still waits")
)

// Folder is where the papers are. Its methods may be called from several goroutines
// and processes.
type Folder struct {
	dir      string
	conflict roster.Conflict
}

// At is the folder below a site's state folder; conflict judges proofs of equivocation.
func At(stateDir string, conflict roster.Conflict) *Folder {
	return &Folder{filepath.Join(stateDir, "consortium"), conflict}
}

// Path is a file's in the folder.
func (f *Folder) Path(name string) string { return filepath.Join(f.dir, name) }

// State is everything of the folder but the keys.
type State struct {
	Organisation string            // ours; "" as long as there is none
	Peers        []federation.Site // other sites of ours, trusted directly

	Certificate *identity.Organisation // ours, as we know it; nil without
	Site        *identity.Site         // of this site; nil without
	Directory   *roster.Directory      // nil outside of a consortium
	waiting     [][]byte               // certificates of sites whose organisation is not admitted yet
}

type stored struct {
	Version      uint8        `cbor:"1,keyasint"`
	Organisation string       `cbor:"2,keyasint"`
	Peers        []storedPeer `cbor:"3,keyasint,omitempty"`
	Certificate  []byte       `cbor:"4,keyasint,omitempty"`
	Site         []byte       `cbor:"5,keyasint,omitempty"`
	Sites        [][]byte     `cbor:"6,keyasint,omitempty"`
	Waiting      [][]byte     `cbor:"7,keyasint,omitempty"`
	Pending      [][]byte     `cbor:"8,keyasint,omitempty"`
}

type storedPeer struct {
	Name  string   `cbor:"1,keyasint"`
	ID    string   `cbor:"2,keyasint"`
	Addrs []string `cbor:"3,keyasint,omitempty"`
}

func toStored(in []federation.Site) (out []storedPeer) {
	for _, p := range in {
		out = append(out, storedPeer{p.Name, string(p.ID), p.Addrs})
	}
	return out
}

func fromStored(in []storedPeer) (out []federation.Site, err error) {
	if len(in) > maxPeers {
		return nil, fmt.Errorf("%d sites: expected at most %d", len(in), maxPeers)
	}
	for _, p := range in {
		id, err := identity.ParseID(p.ID)
		if err == nil {
			err = identity.CheckName(p.Name)
		}
		if err == nil {
			err = identity.CheckAddrs(p.Addrs)
		}
		if err != nil {
			return nil, fmt.Errorf("site %.64q: %v", p.Name, err)
		}
		out = append(out, federation.Site{Name: p.Name, ID: id, Addrs: p.Addrs})
	}
	return out, nil
}

// Load reads the folder. One that is not there is an empty State.
func (f *Folder) Load(now time.Time) (*State, error) {
	s := new(State)
	b, err := readBounded(f.Path(stateFile))
	if err == nil {
		err = f.read(s, b, now)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("membership: %s: %w; restore it from a backup, or move it away and be invited again", f.Path(stateFile), err)
	}
	return s, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, maxState+1))
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("more than %d bytes", maxState)
	}
	return b, err
}

// read fills in what the state file says, and the log. Certificates and entries
// that do not stand any more are left out.
func (f *Folder) read(s *State, b []byte, now time.Time) error {
	var in stored
	if err := canon.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.Version != 1 {
		return fmt.Errorf("version %d: expected 1", in.Version)
	}
	var err error
	s.Organisation, s.waiting = in.Organisation, in.Waiting
	if s.Peers, err = fromStored(in.Peers); err != nil {
		return err
	}
	if len(in.Certificate) > 0 {
		if s.Certificate, err = identity.ParseOrganisation(in.Certificate); err != nil {
			return err
		}
	}
	if len(in.Site) > 0 {
		if s.Site, err = identity.ParseSite(in.Site); err != nil {
			return err
		}
	}
	file, err := os.Open(f.Path(LogFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	l, err := roster.ReadLog(file, f.conflict)
	if err != nil {
		return err
	}
	s.Directory = roster.NewDirectory(l)
	s.enter(in, now)
	return nil
}

func (s *State) enter(in stored, now time.Time) {
	for _, raw := range in.Sites {
		_, _ = s.Directory.AddSite(raw, now) // what has ended or was revoked stays out
	}
	for _, raw := range in.Pending {
		if e, err := roster.ParseEntry(raw); err == nil {
			_, _, _ = s.Directory.Propose(e)
		}
	}
	s.admitWaiting(now)
}

// admitWaiting takes up sites whose organisation has been admitted, and our own
// organisation's and site's newest certificates.
func (s *State) admitWaiting(now time.Time) {
	s.waiting = slices.DeleteFunc(s.waiting, func(raw []byte) bool {
		_, err := s.Directory.AddSite(raw, now)
		return err == nil
	})
	if m := s.Directory.Roster().Member(s.Organisation); m != nil && s.Certificate != nil && m.Serial > s.Certificate.Serial {
		s.Certificate = &m.Organisation
	}
	if s.Site == nil {
		return
	}
	if r, err := s.Directory.Lookup(s.Site.Site, now); err == nil && r.Serial > s.Site.Serial {
		s.Site = &r.Site
	}
}

// Update reads the folder under its lock, lets change work on it and writes it
// back. When change fails nothing is written.
func (f *Folder) Update(now time.Time, change func(*State) error) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	lock, err := os.OpenFile(f.Path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("membership: lock: %w", err)
	}
	s, err := f.Load(now)
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	if err := f.save(s, now); err != nil {
		return fmt.Errorf("membership: store: %w", err)
	}
	return nil
}

func (f *Folder) save(s *State, now time.Time) error {
	out := stored{Version: 1, Organisation: s.Organisation, Waiting: s.waiting, Peers: toStored(s.Peers)}
	if s.Certificate != nil {
		out.Certificate = s.Certificate.Raw
	}
	if s.Site != nil {
		out.Site = s.Site.Raw
	}
	if s.Directory != nil {
		s.admitWaiting(now)
		out.Waiting = s.waiting
		for _, r := range s.Directory.Records(now) {
			out.Sites = append(out.Sites, r.Raw)
		}
		for _, e := range s.Directory.Pending() {
			if b, err := e.Encode(); err == nil {
				out.Pending = append(out.Pending, b)
			}
		}
		var buf bytes.Buffer
		if _, err := s.Directory.Log().WriteTo(&buf); err != nil {
			return err
		}
		if err := identity.Replace(f.Path(LogFile), buf.Bytes()); err != nil {
			return err
		}
	}
	b, err := canon.Marshal(out)
	if err != nil {
		return err
	}
	return identity.Replace(f.Path(stateFile), b)
}

// Stamp changes whenever the folder was written.
func (f *Folder) Stamp() string {
	st, err := os.Stat(f.Path(stateFile))
	if err != nil {
		return ""
	}
	inode := uint64(0)
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	return fmt.Sprint(st.ModTime().UnixNano(), st.Size(), inode)
}

// Own lists our organisation's other sites, which are trusted directly: those that
// were invited, without those that the roster has revoked.
func (s *State) Own() []federation.Site {
	if s.Directory == nil {
		return s.Peers
	}
	m := s.Directory.Roster().Member(s.Organisation)
	if m == nil {
		return s.Peers
	}
	gone := m.Revoked()
	return slices.DeleteFunc(slices.Clone(s.Peers), func(p federation.Site) bool { return slices.Contains(gone, p.ID) })
}

// Others lists the consortium's sites of other organisations that may connect now.
func (s *State) Others(now time.Time) []federation.Site {
	if s.Directory == nil {
		return nil
	}
	var out []federation.Site
	for _, r := range s.Directory.Records(now) {
		if r.Organisation == s.Organisation {
			continue
		}
		until := r.NotAfter
		if m := s.Directory.Roster().Member(r.Organisation); m != nil && m.NotAfter.Before(until) {
			until = m.NotAfter
		}
		out = append(out, federation.Site{
			Name: r.Name, ID: r.Site.Site, Addrs: r.Addrs, Organisation: r.Organisation, Standing: r.Standing.String(), Until: until,
		})
	}
	return out
}

// Roll is who is in the consortium now, for the mesh.
func (s *State) Roll(now time.Time) federation.Roll {
	r := federation.Roll{Others: s.Others(now)}
	if s.Directory == nil {
		return r
	}
	for _, m := range s.Directory.Roster().Members() {
		x := chain.Member{Org: m.Name, Voter: m.Voter}
		if m.Standing == roster.Counted {
			r.Counted = append(r.Counted, x)
		} else {
			r.Observers = append(r.Observers, x)
		}
	}
	return r
}

// Founders are the organisations with which the rounds of the consortium began: all
// who counted when there first were enough. nil before.
func (s *State) Founders() (out []chain.Member) {
	if s.Directory == nil {
		return nil
	}
	first := s.Directory.Log().FirstWith(robust.Quorum)
	if first == nil {
		return nil
	}
	for _, m := range first.Counted() {
		out = append(out, chain.Member{Org: m.Name, Voter: m.Voter})
	}
	return out
}

// addPeer lists a site of ours, in the place of one of the same id.
func (s *State) addPeer(p federation.Site) error {
	i := slices.IndexFunc(s.Peers, func(x federation.Site) bool { return x.ID == p.ID })
	if slices.ContainsFunc(s.Peers, func(x federation.Site) bool { return x.Name == p.Name && x.ID != p.ID }) {
		return fmt.Errorf("a site named %s is listed already: choose another name, or `hedgerow consortium revoke %s` first", p.Name, p.Name)
	}
	switch {
	case i >= 0:
		s.Peers[i] = p
	case len(s.Peers) >= maxPeers:
		return fmt.Errorf("%d sites are listed, which is the most", maxPeers)
	default:
		s.Peers = append(s.Peers, p)
		slices.SortFunc(s.Peers, func(a, b federation.Site) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(string(a.ID), string(b.ID)))
		})
	}
	return nil
}
