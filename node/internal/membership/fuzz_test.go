package membership

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testKey(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// FuzzReadToken: whatever is pasted is refused by name or is a token that says the
// same when it is written again, and no error quotes what may be a secret.
func FuzzReadToken(f *testing.F) {
	tok, err := Invite(Token{
		Kind: ForSite, Inviter: testKey(f, 1).ID(), Addrs: []string{"/ip4/192.0.2.1/tcp/4401"}, Expires: noon.Add(time.Hour), Organisation: "alder", Name: "birch",
	})
	if err != nil {
		f.Fatal(err)
	}
	text, err := tok.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-2])
	f.Add(tokenPrefix)
	f.Add(tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte("12345678")))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ReadToken(s, noon)
		if err != nil {
			if !errors.Is(err, ErrToken) && !errors.Is(err, ErrInvited) {
				t.Fatalf("an error without a name: %v", err)
			}
			if len(s) > 40 && strings.Contains(err.Error(), s) {
				t.Fatalf("the error quotes the token: %v", err)
			}
			return
		}
		again, err := got.Text()
		if err != nil || again != strings.TrimSpace(s) {
			t.Fatalf("read and written again it is another one (%v)", err)
		}
	})
}

// FuzzState: a damaged folder is an error that says what to do, or papers that can be
// asked anything.
func FuzzState(f *testing.F) {
	peers := toStored(nil)
	for i := range 3 {
		peers = append(peers, storedPeer{Name: string(rune('a' + i)), ID: string(testKey(f, byte(i+1)).ID())})
	}
	b, err := canon.Marshal(stored{Version: 1, Organisation: "alder", Peers: peers})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte(nil))
	home := At(f.TempDir(), chain.Conflict)
	if err := home.Create(Us{Name: "alder1", Key: testKey(f, 9)}, "grove", "alder", noon); err != nil {
		f.Fatal(err)
	}
	state, err1 := os.ReadFile(home.Path(stateFile))
	log, err2 := os.ReadFile(home.Path(LogFile))
	if err := errors.Join(err1, err2); err != nil {
		f.Fatal(err)
	}
	f.Add(state, log)
	f.Add(state, log[:len(log)/2])
	dir := At(f.TempDir(), chain.Conflict)
	if err := os.MkdirAll(dir.Path(""), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, state, log []byte) {
		if err := errors.Join(os.WriteFile(dir.Path(stateFile), state, 0o600), os.WriteFile(dir.Path(LogFile), log, 0o600)); err != nil {
			t.Fatal(err)
		}
		s, err := dir.Load(noon)
		if err != nil {
			if !strings.Contains(err.Error(), "backup") {
				t.Fatalf("the error does not say what to do: %v", err)
			}
			return
		}
		if r := s.Roll(noon); len(r.Others) > 0 && s.Directory == nil {
			t.Fatal("sites of a consortium without one")
		}
		if n := len(s.Founders()); n != 0 && n < robust.Quorum {
			t.Fatalf("%d founders", n)
		}
		_ = s.Own()
	})
}

func FuzzReadWelcome(f *testing.F) {
	b, err := canon.Marshal(welcome{Version: 1, Refused: "no"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa1})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := readWelcome(b)
		if (w == nil) == (err == nil) {
			t.Fatalf("neither a welcome nor an error, or both: %v", err)
		}
	})
}
