package roster

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

func TestQuorum(t *testing.T) {
	for n := 1; n <= 1000; n++ {
		q := Quorum(n)
		if 3*q < 2*n || 3*(q-1) >= 2*n {
			t.Fatalf("quorum of %d: %d, expected the least that is two thirds", n, q)
		}
		for f := 0; 3*f < n; f++ { // below a third lie
			if 2*q-n <= f {
				t.Fatalf("n %d: two quorums share %d, of whom %d may lie", n, 2*q-n, f)
			}
			if n-f < q {
				t.Fatalf("n %d: %d honest ones make no quorum of %d", n, n-f, q)
			}
		}
	}
}

func TestGrowth(t *testing.T) {
	l, hs := found(t, 4)
	r := l.Roster()
	if r.Epoch() != 6 || len(r.Counted()) != 4 || len(r.Voters()) != 4 || r.Name() != "grove" {
		t.Fatalf("epoch %d, %d counted, %d voters", r.Epoch(), len(r.Counted()), len(r.Voters()))
	}
	before := r.Head()
	newcomer := newHouse(t, 9)
	must(t, l, newcomer.admission(), hs[:3]...)
	m := l.Roster().Member("org9")
	if m == nil || m.Standing != Observer || m.Since != 7 || len(l.Roster().Counted()) != 4 {
		t.Errorf("the newcomer: %+v, expected an observer who does not count", m)
	}
	if r.Head() != before || r.Member("org9") != nil {
		t.Error("the roster before has changed")
	}
	if err := l.Append(signed(t, l, &Entry{Kind: Count, Organisation: "org9"}, newcomer, hs[0], hs[1])); !errors.Is(err, ErrVotes) {
		t.Errorf("an observer's vote: %v, expected ErrVotes", err)
	}
	must(t, l, &Entry{Kind: Count, Organisation: "org9"}, hs[1:]...)
	must(t, l, &Entry{Kind: Revoke, Organisation: "org9", Why: "it left the trade"}, hs[:4]...)
	if l.Roster().Member("org9") != nil {
		t.Error("it is still there after its revocation")
	}
	if err := l.Append(signed(t, l, newcomer.admission(), hs...)); err == nil || !strings.Contains(err.Error(), "serial") {
		t.Errorf("back with the old certificate: %v, expected a refusal of its serial", err)
	}
	newcomer.certify(t, 2)
	must(t, l, newcomer.admission(), hs...)
	must(t, l, &Entry{Kind: Revoke, Organisation: "org9"}, newcomer) // leaves by itself
}

func TestApplyRefuses(t *testing.T) {
	l, hs := found(t, 4)
	stranger, twin := newHouse(t, 8), newHouse(t, 7)
	twin.root, twin.name = hs[1].root, "twin"
	twin.certify(t, 1)
	thief := newHouse(t, 6)
	thief.sites[0] = hs[2].sites[0]
	foreign := newHouse(t, 2)
	foreign.root = stranger.root
	foreign.certify(t, 5)
	for name, c := range map[string]struct {
		e    *Entry
		by   []*house
		want error
	}{
		"too few":                         {stranger.admission(), hs[:2], ErrVotes},
		"nobody":                          {stranger.admission(), nil, ErrVotes},
		"a root that is a member already": {twin.admission(), hs, ErrEntry},
		"another's voting site":           {thief.admission(), hs, ErrEntry},
		"a member":                        {hs[1].admission(), hs, ErrEntry},
		"who counts already":              {&Entry{Kind: Count, Organisation: "org2"}, hs, ErrEntry},
		"who is not here":                 {&Entry{Kind: Revoke, Organisation: "org5"}, hs, ErrNotMember},
		"revoked by a rival":              {&Entry{Kind: Revoke, Organisation: "org2"}, hs[:1], ErrVotes},
		"another's voter":                 {&Entry{Kind: Voter, Organisation: "org2", Site: stranger.voter()}, []*house{hs[0], hs[2], hs[3]}, ErrVotes},
		"renewed under another root":      {&Entry{Kind: Renew, Organisation: "org2", Cert: foreign.cert.Raw}, hs, ErrEntry},
		"rerooted by itself":              {&Entry{Kind: Reroot, Organisation: "org2", Cert: foreign.cert.Raw}, hs[1:2], ErrVotes},
		"its voting site revoked":         {&Entry{Kind: RevokeSite, Organisation: "org2", Site: hs[1].voter()}, hs, ErrEntry},
		"an unknown kind":                 {&Entry{Kind: "crown", Organisation: "org2"}, hs, ErrEntry},
		"a field too many":                {&Entry{Kind: Count, Organisation: "org2", Site: hs[1].voter()}, hs, ErrEntry},
		"a sentence that is too long":     {&Entry{Kind: Revoke, Organisation: "org2", Why: strings.Repeat("x", 201)}, hs, ErrEntry},
	} {
		before := l.Roster().Head()
		err := l.Append(signed(t, l, c.e, c.by...))
		if !errors.Is(err, c.want) || l.Roster().Head() != before {
			t.Errorf("%s: %v, expected %v and no change", name, err, c.want)
		}
	}
	if err := l.Append(signed(t, l, &Entry{Kind: Count, Organisation: "org2"})); err == nil {
		t.Error("an unsigned entry was taken")
	}
}

// An entry that stood once stands nowhere again, and votes cannot be moved.
func TestReplay(t *testing.T) {
	l, hs := found(t, 4)
	h := newHouse(t, 9)
	admission := signed(t, l, h.admission(), hs...)
	if err := l.Append(admission); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(admission); !errors.Is(err, ErrParent) {
		t.Errorf("again at once: %v, expected ErrParent", err)
	}
	moved := *admission
	moved.Parent = l.Roster().Head()
	moved.Kind, moved.Cert, moved.Site = Revoke, nil, ""
	if err := l.Append(&moved); !errors.Is(err, ErrVotes) {
		t.Errorf("votes under another entry: %v, expected ErrVotes", err)
	}
	swapped := signed(t, l, &Entry{Kind: Count, Organisation: h.name}, hs[0])
	for _, x := range hs[1:] { // one vote under every name
		swapped.Votes = append(swapped.Votes, Vote{x.name, swapped.Votes[0].Sig})
	}
	if err := l.Append(swapped); !errors.Is(err, ErrVotes) {
		t.Errorf("one vote under four names: %v, expected ErrVotes", err)
	}
}

func TestKeysAndSites(t *testing.T) {
	l, hs := found(t, 4)
	h := hs[1]
	old := h.site(t, 1, 1, identity.MaxSite)
	if m, err := l.Roster().Admits(old); err != nil || m.Name != h.name {
		t.Fatalf("a site: %v, %v", m, err)
	}
	must(t, l, &Entry{Kind: RevokeSite, Organisation: h.name, Site: h.sites[1].ID()}, h)
	if _, err := l.Roster().Admits(old); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked site: %v, expected ErrRevoked", err)
	}
	h.key = testKey(t, 2, 9)
	h.certify(t, 2)
	must(t, l, &Entry{Kind: Renew, Organisation: h.name, Cert: h.cert.Raw}) // the root's word
	if _, err := l.Roster().Admits(h.site(t, 0, 1, identity.MaxSite)); err != nil {
		t.Errorf("a site of the new key: %v", err)
	}
	if _, err := l.Roster().Admits(old); !errors.Is(err, identity.ErrCertificate) {
		t.Errorf("a site of the key before: %v, expected ErrCertificate", err)
	}
	must(t, l, &Entry{Kind: Voter, Organisation: h.name, Site: h.sites[1].ID()}, h)
	h.root = testKey(t, 2, 8) // the root is lost: the others vouch for a new one
	h.certify(t, 3)
	must(t, l, &Entry{Kind: Reroot, Organisation: h.name, Cert: h.cert.Raw}, hs[0], hs[2], hs[3])
	if got := l.Roster().Member(h.name); got.Root != h.root.ID() || got.Voter != h.sites[1].ID() || got.Standing != Counted {
		t.Errorf("after the new root: %+v", got)
	}
}

func TestEquivocation(t *testing.T) {
	l, hs := found(t, 4)
	liar := hs[3].sites[0]
	proof := func(a, b string) *Proof {
		return &Proof{liar.ID(), "vote", []byte(a), []byte(b), liar.Sign("vote", []byte(a)), liar.Sign("vote", []byte(b))}
	}
	for name, p := range map[string]*Proof{
		"no conflict": proof("1 yes", "2 no"), "one message": proof("1 yes", "1 yes"),
		"a forged half": func() *Proof { p := proof("1 yes", "1 no"); p.SigB = hs[0].key.Sign("vote", p.B); return p }(),
		"not of theirs": {hs[0].voter(), "vote", []byte("1a"), []byte("1b"), hs[0].sites[0].Sign("vote", []byte("1a")), hs[0].sites[0].Sign("vote", []byte("1b"))},
	} {
		if err := l.Append(signed(t, l, &Entry{Kind: Equivocation, Organisation: hs[3].name, Proof: p}, hs...)); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %v, expected ErrEntry", name, err)
		}
	}
	must(t, l, &Entry{Kind: Equivocation, Organisation: hs[3].name, Proof: proof("1 yes", "1 no")}, hs[:3]...)
	if l.Roster().Member(hs[3].name) != nil {
		t.Error("who signed two votes is still there")
	}
}

func TestLogIsAudited(t *testing.T) {
	l, hs := found(t, 3)
	must(t, l, &Entry{Kind: RevokeSite, Organisation: hs[0].name, Site: hs[0].sites[1].ID()}, hs[0])
	var buf bytes.Buffer
	if _, err := l.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	again, err := ReadLog(bytes.NewReader(buf.Bytes()), differ)
	if err != nil || again.Roster().Head() != l.Roster().Head() || again.Roster().Epoch() != 5 {
		t.Fatalf("read back: %v", err)
	}
	for i := range buf.Bytes() {
		if i%7 != 0 {
			continue
		}
		b := bytes.Clone(buf.Bytes())
		b[i] ^= 1
		got, err := ReadLog(bytes.NewReader(b), differ)
		if err == nil && got.Roster().Head() != l.Roster().Head() { // a vote more than needed may break
			t.Fatalf("byte %d: another history was taken", i)
		}
	}
	if _, err := ReadLog(bytes.NewReader(buf.Bytes()[:buf.Len()-3]), differ); err == nil || !strings.Contains(err.Error(), "entry 5") {
		t.Errorf("cut off: %v, expected the entry to be named", err)
	}
	if names := func() (out []string) {
		for _, m := range again.Roster().Members() {
			out = append(out, m.Name)
		}
		return out
	}(); !slices.Equal(names, []string{"org1", "org2", "org3"}) {
		t.Errorf("members %v", names)
	}
}

func FuzzEntry(f *testing.F) {
	l, hs := found(f, 2)
	for _, e := range []*Entry{newHouse(f, 5).admission(), {Kind: Revoke, Organisation: "org2", Why: "gone"}} {
		b, err := signed(f, l, e, hs...).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
		if next, err := l.Roster().Apply(e, differ); err == nil && next.Epoch() != l.Roster().Epoch()+1 {
			t.Fatal("an entry that stands makes no next epoch")
		}
	})
}
