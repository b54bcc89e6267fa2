package node

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// firstSchema is the encoding of a vector of version 1: its 64 features are x.
func firstSchema(x float32) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{1}, math.MaxUint64)
	for range 64 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// labelOf is a stored label with a vector as it is encoded.
func labelOf(family string, vector []byte) []byte {
	b := binary.AppendUvarint(nil, 1000)
	for _, s := range []string{family, "incident"} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, vector...)
}

// What people taught a site outlives a change of the schema, and is stored in
// the new one from then on.
func TestLabelsOfTheFirstSchemaAreKept(t *testing.T) {
	x := newLearned(t)
	now := x.ordinary()
	b, _ := now.MarshalBinary()
	stored := append(binary.AppendUvarint(nil, 2), labelOf("scan", firstSchema(0.5))...)
	if err := x.o.Store.Save(keyAttacks, append(stored, labelOf("leak", b)...)); err != nil {
		t.Fatal(err)
	}
	if err := x.o.Store.Save(keyKnown, append([]byte{0, 1}, append(firstSchema(0.25), firstSchema(0.75)...)...)); err != nil {
		t.Fatal(err)
	}
	x.restart()
	last := feature.Index("known_service")
	if l := x.learn.attacks; len(l) != 2 || l[0].Family != "scan" || l[0].V.X[last] != 0.5 || l[1].V != now {
		t.Errorf("labels: %+v", l)
	}
	if x.learn.attacks[0].V.Known(feature.Index("tls_alpn")) || x.learn.attacks[0].V.Known(feature.Index("known_client")) {
		t.Error("a vector of the first schema tells what that had not")
	}
	if k, f := x.learn.known, x.learn.forgiven; len(k) != 1 || len(f) != 1 || k[0].X[last] != 0.25 || f[0].X[last] != 0.75 {
		t.Errorf("canaries: %+v and %+v", k, f)
	}
}

// A model of another schema is not used: the log says why, the site goes on
// without one, and its next model takes over.
func TestModelsOfTheFirstSchemaAreRefused(t *testing.T) {
	x := newLearned(t)
	x.see(1500)
	x.train()
	x.states()
	old, weights, err := x.o.Store.Model(x.models.m.Roles().Active)
	if err != nil {
		t.Fatal(err)
	}
	// In the encoding the codec's version, 1, has key 1, and the schema key 2.
	was := bytes.Replace(weights, []byte{1, 1, 2, feature.Version}, []byte{1, 1, 2, 1}, 1)
	if bytes.Equal(was, weights) {
		t.Fatal("the schema is not where it was expected")
	}
	if err := x.o.Store.PutModel(old.Model, was); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	x.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	x.restart()
	if x.learn.active() != nil {
		t.Error("a model of the first schema judges")
	}
	if want := "feature schema 1: expected 2: train anew"; !strings.Contains(log.String(), want) {
		t.Errorf("log %q: expected %q", log.String(), want)
	}
	x.see(1500)
	x.train()
	if m := x.learn.active(); m == nil || m.Hash() == old.Hash {
		t.Errorf("after training: %v", x.states())
	}
}

func FuzzLabels(f *testing.F) {
	var v feature.Vector
	b, _ := v.MarshalBinary()
	f.Add(append([]byte{1}, labelOf("scan", firstSchema(0.5))...))
	f.Add(append([]byte{1}, labelOf("scan", b)...))
	f.Add([]byte{1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		xs, err := decodeAttacks(in)
		if err != nil {
			return
		}
		for i := range xs {
			if err := xs[i].V.Valid(); err != nil {
				t.Errorf("label %d: %v", i, err)
			}
		}
	})
}
