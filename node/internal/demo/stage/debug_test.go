package stage

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

type seen struct {
	v    feature.Vector
	peer netip.Addr
	pk   uint32
	at   int64
	end  bool
	id   uint64
	port uint16
}

func TestDebug(t *testing.T) {
	seed, _ := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	synctest.Test(t, func(t *testing.T) {
		bus := membus.New(membus.Config{Seed: 1})
		sc := scenario.New(seed)
		var mu sync.Mutex
		sensors := map[string]*enforce.Sensor{}
		vecs := map[string][]seen{}
		for i, s := range sc.Sites {
			x, err := enforce.NewSensor(feature.ContextOptions{Settle: settle, Seed: seed*16 + uint64(i) + 1})
			if err != nil {
				t.Fatal(err)
			}
			sensors[s.Name] = x
		}
		var stg *softStage
		o := Options{Scenario: sc, Learner: true, hold: func(s *softStage) { stg = s }, tap: func(site string, e *dataplane.Event) {
			_, v := sensors[site].Judge(e)
			if v == nil {
				return
			}
			p, _, _ := e.Record.Outside()
			mu.Lock()
			defer mu.Unlock()
			vecs[site] = append(vecs[site], seen{*v, p.Addr(), e.Record.Packets(), e.Record.Last, e.Kind == dataplane.EventEnd, e.Record.ID, e.Record.Responder().Port()})
		}}
		st, err := Soft(t.Context(), o, nil,
			func(k *identity.Key, _ string, _ []federation.Site) (federation.Transport, error) {
				return bus.Join(k.ID()), nil
			})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		out := io.Writer(os.Stdout)
		r, err := demo.Tell(t.Context(), demo.Options{
			Scenario: sc, Network: st.Network, Sites: st.Sites, Where: st.Where, Attacks: scenario.Attacks(), Learner: true, Out: out,
		})
		if err != nil {
			t.Error(err)
		}
		_ = r
		for _, x := range stg.sites {
			hash, err := x.store.Active("active")
			if err != nil {
				t.Log(err)
				continue
			}
			champ, _ := x.store.Active("champion")
			for _, h := range []string{champ, hash} {
				_, b, err := x.store.Model(h)
				if err != nil {
					t.Fatal(err)
				}
				m, err := learner.Unmarshal(b)
				if err != nil {
					t.Fatal(err)
				}
				show(t, x.name, m, vecs[x.name], sc)
			}
		}
	})
}

func show(t *testing.T, name string, m *learner.Model, vs []seen, sc *scenario.Scenario) {
	s := learner.NewScratch()
	hostile := map[netip.Addr]string{sc.Scanner: "scan", sc.Guesser: "brute", sc.Sink: "spurt", sc.C2[0]: "c2-0", sc.C2[1]: "c2-1", sc.C2[2]: "c2-2"}
	var norm, normA []float64
	fmt.Printf("== %s model %s knows=%v floor %.2g\n", name, m.Meta().Hash[:8], m.Meta().KnowsAttacks, m.Floor())
	n := 0
	for _, v := range vs {
		sco := m.Score(&v.v, s)
		k, bad := hostile[v.peer]
		if !bad {
			norm = append(norm, sco.PSelf)
			normA = append(normA, sco.PAttack)
			continue
		}
		if k[:2] == "c2" && n < 40 {
			n++
			fmt.Printf("  %s pk=%d end=%v self %.2f p=%.2g attack %.2f p=%.2g\n", k, v.pk, v.end, sco.Self, sco.PSelf, sco.Attack, sco.PAttack)
		}
	}
	if name == "cedar" && m.Meta().KnowsAttacks {
		top := append([]seen(nil), vs...)
		sort.Slice(top, func(i, j int) bool {
			return m.Score(&top[i].v, s).Attack > m.Score(&top[j].v, s).Attack
		})
		k := 0
		for _, v := range top {
			if hostile[v.peer] != "" {
				continue
			}
			if k++; k > 400 {
				break
			}
			if k%40 != 1 {
				continue
			}
			sco := m.Score(&v.v, s)
			fmt.Printf("  normal #%d port %d pk=%d end=%v at %.1f attack %.2f p=%.2g self p=%.2g\n", k, v.port, v.pk, v.end, float64(v.at-vs[0].at)/1e9, sco.Attack, sco.PAttack, sco.PSelf)
		}
	}
	sort.Float64s(norm)
	sort.Float64s(normA)
	fmt.Printf("  normals %d: self p min %.2g %.2g %.2g; attack p min %.2g %.2g %.2g\n", len(norm), norm[0], norm[5], norm[20], normA[0], normA[5], normA[20])
	_ = time.Now
}
