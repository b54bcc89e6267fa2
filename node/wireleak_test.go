//go:build !race

package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

// recorder keeps all that a site sends: what it broadcasts, asks and answers.
type recorder struct {
	federation.Transport
	mu   sync.Mutex
	sent [][]byte
}

func (r *recorder) keep(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, bytes.Clone(b))
}

func (r *recorder) all() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Join(r.sent, []byte("|"))
}

func (r *recorder) Broadcast(ctx context.Context, topic federation.Topic, b []byte) error {
	r.keep(b)
	return r.Transport.Broadcast(ctx, topic, b)
}

func (r *recorder) Request(ctx context.Context, peer identity.ID, b []byte) ([]byte, error) {
	r.keep(b)
	return r.Transport.Request(ctx, peer, b)
}

func (r *recorder) Run(ctx context.Context, h federation.Handler) error {
	return r.Transport.Run(ctx, recorded{h, r})
}

type recorded struct {
	federation.Handler
	r *recorder
}

func (h recorded) Serve(ctx context.Context, from identity.ID, b []byte) ([]byte, error) {
	out, err := h.Handler.Serve(ctx, from, b)
	h.r.keep(out)
	return out, err
}

// secret is what must not leave, in a form that it could have on the wire.
type secret struct {
	what  string
	bytes []byte
}

// secretsOf are the forms of hosts' addresses, of payloads and of vectors: texts,
// addresses as bytes, and any four neighbouring numbers of a vector, as floats of
// either size and order.
func secretsOf(hosts []netip.Addr, payloads []string, vectors []feature.Vector) (out []secret) {
	for _, h := range hosts {
		out = append(out, secret{h.String(), []byte(h.String())}, secret{h.String() + " as bytes", h.AsSlice()})
	}
	for _, p := range payloads {
		out = append(out, secret{"payload " + p, []byte(p)})
	}
	for i := range vectors {
		x := vectors[i].X[:]
		for at := 0; at+4 <= len(x); at++ {
			if x[at] == 0 || x[at+1] == 0 || x[at+2] == 0 || x[at+3] == 0 {
				continue // runs of zeros mean nothing
			}
			for name, enc := range floats(x[at : at+4]) {
				out = append(out, secret{fmt.Sprintf("numbers %d to %d of vector %d, %s", at, at+3, i, name), enc})
			}
		}
	}
	return out
}

func floats(x []float32) map[string][]byte {
	out := map[string][]byte{}
	for _, f := range x {
		out["little"] = binary.LittleEndian.AppendUint32(out["little"], math.Float32bits(f))
		out["big"] = binary.BigEndian.AppendUint32(out["big"], math.Float32bits(f))
		out["wide little"] = binary.LittleEndian.AppendUint64(out["wide little"], math.Float64bits(float64(f)))
		out["wide big"] = binary.BigEndian.AppendUint64(out["wide big"], math.Float64bits(float64(f)))
	}
	return out
}

func found(in []byte, secrets []secret) (out []string) {
	for _, s := range secrets {
		if bytes.Contains(in, s.bytes) {
			out = append(out, s.what)
		}
	}
	return out
}

// Everything that a site sends in a session with indicators, questions and a
// round of models is searched for its hosts' addresses, its payloads and its
// vectors. That the search finds them when they are there is the control.
func TestNoSecretIsOnTheWire(t *testing.T) {
	rec := &recorder{}
	vectors := noisyVectors(400)
	s := sitesWith(t, func(o *Options) {
		o.Learner.Enabled, o.Learner.Seed = true, 3
		o.Privacy = PrivacyOptions{Unit: PrivacyFlow, Epsilon: 50, Delta: 1e-6, Clip: 0.1, Noise: 2}
		if o.Site == "alder" {
			rec.Transport, o.Mesh.Transport = o.Mesh.Transport, rec
		}
	}, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	connected(t, birch, "alder")
	for _, x := range s {
		x.node.learn.mu.Lock()
		for i := range vectors {
			at := time.Now().Add(-time.Hour + time.Duration(i)*time.Second)
			if i == 0 {
				x.node.learn.first = at
			}
			x.node.learn.pool.Add(at, &vectors[i], uint64(1+i%20), uint64(1+i%50), uint64(1+i%9))
		}
		x.node.learn.mu.Unlock()
	}
	secrets := secretsOf([]netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.77")},
		[]string{"salaries-of-march", "payroll.internal.example"}, vectors[:40])

	talk(alder)
	alder.scan(attacker)
	eventually(t, "birch blocks the scanner", birch.blocks(attacker.String()))
	alder.order(api.Order{Target: "198.51.100.9", Action: "block", Reason: "salaries-of-march were sent there from 10.0.0.77", Share: true})
	eventually(t, "birch blocks the drop zone", birch.blocks("198.51.100.9"))
	if _, err := alder.node.StartRound(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 2*time.Minute, "a model is made of both sites' changes", func() bool {
		st, err := birch.node.Status(t.Context())
		return err == nil && st.Mesh.Round >= 1
	})
	sent := rec.all()
	// The operator's own sentence is his to say; private addresses are cut out of it.
	sent = bytes.ReplaceAll(sent, []byte("salaries-of-march were sent there"), nil)
	if len(sent) < 4*len(vectors[0].X) || !bytes.Contains(sent, []byte(attacker.String())) {
		t.Fatalf("%d bytes were recorded: an update and an indicator are not among them", len(sent))
	}
	if leaks := found(sent, secrets); len(leaks) > 0 {
		t.Errorf("of %d bytes sent: %s", len(sent), strings.Join(leaks, "; "))
	}
	for _, x := range secrets {
		at := len(sent) / 2
		if planted := slices.Concat(sent[:at:at], x.bytes, sent[at:]); len(found(planted, []secret{x})) != 1 {
			t.Errorf("control: %s was planted and is not found", x.what)
		}
	}
}

// talk is a session of an inside host whose contents are secret.
func talk(s *testSite) {
	x := planetest.NewSession(netip.MustParseAddrPort("10.0.0.77:45000"), netip.MustParseAddrPort("198.51.100.9:443"))
	s.pass(x.Open()...)
	s.pass(x.Data(0, []byte("GET /salaries-of-march HTTP/1.1\r\nHost: payroll.internal.example\r\n\r\n")), x.Data(1, []byte("salaries-of-march")))
	s.pass(x.Close()...)
}
