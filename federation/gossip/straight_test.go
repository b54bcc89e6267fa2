package gossip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// talker is a transport that runs, with what it heard and how often.
type talker struct {
	*Transport
	mu    sync.Mutex
	words map[string]int
}

func (k *talker) Receive(_ context.Context, _ federation.Topic, _ identity.ID, b []byte) federation.Verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.words[string(b)]++
	switch {
	case strings.HasPrefix(string(b), "wrong"):
		return federation.Reject
	case k.words[string(b)] > 1:
		return federation.Ignore // as a member does with what it knows
	}
	return federation.Accept
}

func (*talker) Serve(context.Context, identity.ID, []byte) ([]byte, error) {
	return nil, errors.New("nothing is served")
}

func (*talker) PeerChanged(federation.PeerInfo) {}

func (k *talker) heardWord(b string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.words[b]
}

// talkers starts n sites; those of which apart says so do not know where the other is.
func talkers(t *testing.T, n int, apart func(i, j int) bool) []*talker {
	t.Helper()
	var out []*talker
	for i := range n {
		tr := transport(t, byte(i+1), Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, DialEvery: 20 * time.Millisecond})
		out = append(out, &talker{Transport: tr, words: make(map[string]int)})
	}
	for i, k := range out {
		var roster []federation.Site
		for j, o := range out {
			s := federation.Site{Name: fmt.Sprint("site", j), ID: o.self, Organisation: fmt.Sprint("org", j)}
			if j < i && !apart(i, j) {
				s.Addrs = o.Addrs()
			}
			roster = append(roster, s)
		}
		if err := k.SetRoster(roster); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx, k) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	within(t, "all are connected that can be", func() bool {
		for i, k := range out {
			for j, o := range out {
				if i != j && !apart(i, j) && !k.connected(o.host.ID()) {
					return false
				}
			}
		}
		return true
	})
	return out
}

func together(int, int) bool { return false }

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (k *talker) says(t *testing.T, word string) {
	t.Helper()
	if err := k.Broadcast(t.Context(), federation.TopicCouncil, []byte(word)); err != nil {
		t.Fatal(err)
	}
}

func allHear(out []*talker, but *talker, word string) bool {
	return !slices.ContainsFunc(out, func(o *talker) bool { return o != but && o.heardWord(word) == 0 })
}

// Where all are connected a word is sent once to each, by its author, and by nobody else.
func TestStraightIsOnce(t *testing.T) {
	const n = 8
	out := talkers(t, n, together)
	traffic := func() (sum int64) {
		for _, k := range out {
			sent, _ := k.Traffic()
			sum += sent
		}
		return sum
	}
	const words = 10
	before := traffic()
	for i := range words {
		word := fmt.Sprintf("%0*d", 8000, i)
		out[0].says(t, word)
		within(t, "all hear it", func() bool { return allHear(out, out[0], word) })
	}
	if sent, least := traffic()-before, int64(words*(n-1)*8000); sent < least || sent > least*5/4 {
		t.Errorf("%d bytes were sent for %d words to %d sites: expected %d and a little more", sent, words, n-1, least)
	}
}

// Who is not connected with the author hears its word by the others.
func TestStraightNeedsAll(t *testing.T) {
	out := talkers(t, 3, func(i, j int) bool { return i+j == 3 }) // 1 and 2 know only 0
	i := 0
	within(t, "the words come by the one between", func() bool { // the topics must be known first
		i++
		word := fmt.Sprint("word ", i/50)
		if i%50 == 1 {
			out[1].says(t, word)
		}
		return out[2].heardWord(word) > 0
	})
	if out[1].connected(out[2].host.ID()) {
		t.Error("they are connected: nobody was needed between them")
	}
}

// A site that takes streams and loses what comes on them gets the word when it is said
// again, though all others know it.
func TestSaidAgainByGossip(t *testing.T) {
	out := talkers(t, 4, together)
	lossy := out[3]
	lossy.host.SetStreamHandler(straightly, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	out[0].says(t, "once")
	within(t, "the others hear it", func() bool { return allHear(out[:3], out[0], "once") })
	if lossy.heardWord("once") > 0 {
		t.Fatal("nothing was lost")
	}
	i := 0
	within(t, "it hears what is said again", func() bool {
		if i++; i%20 == 1 {
			out[0].says(t, "once")
		}
		return lossy.heardWord("once") > 0
	})
	for _, k := range out[1:3] {
		if n := k.heardWord("once"); n != 1 {
			t.Errorf("a site judged the same word %d times", n)
		}
	}
}

// A site that takes no streams at all hears everything by gossip.
func TestWithoutStraight(t *testing.T) {
	out := talkers(t, 4, together)
	out[3].host.RemoveStreamHandler(straightly)
	within(t, "the author knows", func() bool {
		can, err := out[0].host.Peerstore().SupportsProtocols(out[3].host.ID(), straightly)
		return err == nil && len(can) == 0
	})
	for i := range 20 {
		word := fmt.Sprint("word ", i)
		out[0].says(t, word)
		within(t, "all hear it", func() bool { return allHear(out, out[0], word) })
	}
}

// What is above the budget is not judged, and who goes on is cut off.
func TestStraightBudget(t *testing.T) {
	out := talkers(t, 2, together)
	most := out[1].ledger.budget
	for i := range int(most.Site) + 4*tooMuch {
		_ = out[0].Broadcast(t.Context(), federation.TopicCouncil, fmt.Appendf(nil, "flood %d", i))
	}
	within(t, "who floods is cut off", func() bool { return out[1].ledger.silenced(out[0].host.ID()) })
	out[1].mu.Lock()
	defer out[1].mu.Unlock()
	if n := len(out[1].words); n > int(most.Burst) {
		t.Errorf("%d words were judged: expected at most %g", n, most.Burst)
	}
}

// Who says invalid words straight is heard no more, and its score shows it.
func TestInvalidStraight(t *testing.T) {
	out := talkers(t, 2, together)
	from := out[0].host.ID()
	s, err := out[0].host.NewStream(t.Context(), out[1].host.ID(), straightly)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tooWrong + 1 {
		_ = write(s, append(binary.BigEndian.AppendUint32(nil, 8), fmt.Sprintf("wrong %2d", i)...))
	}
	within(t, "it is heard no more", func() bool { return out[1].ledger.mistrusted(from) })
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("its stream is still open")
	}
	if n := out[1].heardWord(fmt.Sprintf("wrong %2d", tooWrong)); n > 0 {
		t.Error("the word after the last was judged")
	}
	if score := out[1].appScore(from); score > -3000 {
		t.Errorf("its score is %g", score)
	}
}

// FuzzReadWord: whatever comes on a stream, a word is never longer than it says, nor
// than the buffer.
func FuzzReadWord(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf, taken := bytes.NewReader(in), make([]byte, wire.MaxSmall), 0
		for {
			b, err := readWord(r, buf)
			if err != nil {
				return
			}
			if len(b) == 0 || !bytes.Equal(b, in[taken+frameHead:taken+frameHead+len(b)]) {
				t.Fatalf("a word of %d bytes at %d is not what came", len(b), taken)
			}
			taken += frameHead + len(b)
		}
	})
}
