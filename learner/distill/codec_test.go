package distill

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// confirmed is a memory of which some flows were confirmed, with hard numbers.
func confirmed() *Memory {
	m := NewMemory(100, 1)
	for f := range uint64(6) {
		l := Look{At: score.Milestone(f % 4), P: 0.25}
		l.X[0], l.X[1], l.X[score.Dim-1] = math.MinInt32, math.MaxInt32, int32(f)
		m.Add(1, Tag{Flow: f, Cause: f, Incident: []string{"i1", "i2"}[f%2]}, &l)
		l.At++
		m.Add(1, Tag{Flow: f, Cause: f}, &l)
	}
	m.Confirm("i1", 0, 1)
	m.Confirm("i2", 0, 0.5)
	return m
}

func TestConfirmedFlowsComeBack(t *testing.T) {
	m, back := confirmed(), NewMemory(100, 1)
	b := m.MarshalConfirmed()
	if err := back.UnmarshalConfirmed(b); err != nil {
		t.Fatal(err)
	}
	if _, n := back.Len(); n != 6 || !reflect.DeepEqual(m.marked, back.marked) {
		t.Fatalf("%d flows came back, other ones than went", n)
	}
	for cut := range b {
		if back.UnmarshalConfirmed(b[:cut]) == nil {
			t.Fatalf("the first %d of %d bytes were taken", cut, len(b))
		}
	}
	if back.UnmarshalConfirmed(append(b, 0)) == nil {
		t.Error("a byte too many was taken")
	}
	if _, n := back.Len(); n != 6 {
		t.Errorf("after errors %d flows are left", n)
	}
}

func FuzzConfirmed(f *testing.F) {
	f.Add(confirmed().MarshalConfirmed())
	f.Add([]byte{confirmedVersion, score.FeatureVersion, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMemory(16, 1)
		if m.UnmarshalConfirmed(b) != nil {
			return
		}
		again := NewMemory(16, 1)
		c := m.MarshalConfirmed()
		if err := again.UnmarshalConfirmed(c); err != nil || !bytes.Equal(c, again.MarshalConfirmed()) {
			t.Fatalf("what was taken does not come back: %v", err)
		}
	})
}
