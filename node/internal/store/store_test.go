package store

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func memory(t *testing.T) *Store { return open(t, "", Options{InMemory: true}) }

// peerEvent is a small event of a kind that nothing else depends on.
func peerEvent(at time.Time, name string) *event.Event {
	return &event.Event{
		V: event.Version, ID: event.NewID(at), Time: at, Site: "alder", Kind: event.KindPeer,
		Peer: &event.Peer{Name: name, State: "connected"},
	}
}

func alertEvent(at time.Time, sentence string) *event.Event {
	return &event.Event{
		V: event.Version, ID: event.NewID(at), Time: at, Site: "alder", Kind: event.KindAlert,
		Alert: &event.Alert{Incident: "i", Host: "10.0.0.3", Sentence: sentence, Reasons: []event.Reason{}},
	}
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestEventsSurviveAndSort(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.PutEvent(peerEvent(epoch.Add(time.Duration(9-i)*time.Second), fmt.Sprint(9-i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if s.Missing().Any() {
		t.Fatal(s.Missing())
	}
	list, err := s.Events(Query{})
	if err != nil || len(list) != 10 {
		t.Fatalf("%d events, %v", len(list), err)
	}
	for i, e := range list {
		if e.Peer.Name != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, e.Peer.Name)
		}
	}
}

func TestEventsByQuery(t *testing.T) {
	s := memory(t)
	var ids []string
	for i := range 20 {
		e := peerEvent(epoch.Add(time.Duration(i)*time.Minute), fmt.Sprint(i))
		if i%5 == 0 {
			e = alertEvent(epoch.Add(time.Duration(i)*time.Minute), fmt.Sprint(i))
		}
		ids = append(ids, e.ID)
		if err := s.PutEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	at := func(i int) time.Time { return epoch.Add(time.Duration(i) * time.Minute) }
	alerts := []event.Kind{event.KindAlert}
	tests := map[string]struct {
		q    Query
		want []int
	}{
		"first three":        {Query{Limit: 3}, []int{0, 1, 2}},
		"last three":         {Query{Limit: 3, Reverse: true}, []int{19, 18, 17}},
		"window":             {Query{Since: at(5), Until: at(8)}, []int{5, 6, 7}},
		"window, reverse":    {Query{Since: at(5), Until: at(8), Reverse: true}, []int{7, 6, 5}},
		"one kind":           {Query{Kinds: alerts}, []int{0, 5, 10, 15}},
		"one kind, reverse":  {Query{Kinds: alerts, Reverse: true, Limit: 2}, []int{15, 10}},
		"one kind in window": {Query{Kinds: alerts, Since: at(1), Until: at(10)}, []int{5}},
		"two kinds":          {Query{Kinds: []event.Kind{event.KindAlert, event.KindPeer}, Since: at(18)}, []int{18, 19}},
		"a kind without any": {Query{Kinds: []event.Kind{event.KindModel}}, nil},
		"after everything":   {Query{Since: at(30)}, nil},
		"before everything":  {Query{Until: at(-1), Reverse: true}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			list, err := s.Events(tt.q)
			if err != nil || len(list) != len(tt.want) {
				t.Fatalf("%d events, %v; want %d", len(list), err, len(tt.want))
			}
			for i, e := range list {
				if e.ID != ids[tt.want[i]] {
					t.Errorf("place %d: found the event of %s", i, e.Time)
				}
			}
		})
	}
}

func TestEventByShortID(t *testing.T) {
	s := memory(t)
	a, b := peerEvent(epoch, "a"), peerEvent(epoch, "b")
	a.ID, b.ID = "abc1", "abc2"
	for _, e := range []*event.Event{a, b} {
		if err := s.PutEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := s.Event("abc2"); err != nil || e.Peer.Name != "b" {
		t.Fatalf("found %v, %v", e, err)
	}
	if _, err := s.Event("ab"); !errors.Is(err, errAmbiguous) {
		t.Errorf("ambiguous: %v", err)
	}
	for _, id := range []string{"zz", "", strings.Repeat("x", 100)} {
		if _, err := s.Event(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestReplacedEventCountsOnce(t *testing.T) {
	s := memory(t)
	e := alertEvent(epoch, "short")
	for _, sentence := range []string{"short", "a longer sentence"} {
		e.Alert.Sentence = sentence
		if err := s.PutEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	got := s.Stats()
	text, err := s.get(eventKey(e.ID))
	if err != nil || got.Events != 1 || got.EventBytes != int64(len(text)) {
		t.Fatalf("%d events of %d bytes, %v", got.Events, got.EventBytes, err)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	s := memory(t)
	b := s.Batch()
	b.Event(peerEvent(epoch, "a"))
	b.Block(event.Block{Target: "203.0.113.9"})
	b.Event(&event.Event{V: event.Version, ID: "x", Time: epoch, Kind: event.KindPeer}) // no body
	if err := b.Commit(); err == nil {
		t.Fatal("a batch with an invalid event was taken")
	}
	list, _ := s.Events(Query{})
	blocks, _ := s.Blocks()
	if len(list)+len(blocks) != 0 {
		t.Fatalf("%d events and %d blocks of a refused batch", len(list), len(blocks))
	}
	big := alertEvent(epoch, strings.Repeat("x", maxEvent))
	if err := s.PutEvent(big); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("an event of 256 KiB: %v", err)
	}
	if err := s.Batch().Commit(); err != nil {
		t.Fatalf("an empty batch: %v", err)
	}
}

func TestBlocksSurvive(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for _, b := range []event.Block{{Target: "203.0.113.9", Reason: "first"}, {Target: "203.0.113.10"}, {Target: "203.0.113.9", Reason: "second"}} {
		if err := s.PutBlock(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteBlock("203.0.113.10"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteBlock("192.0.2.77"); err != nil {
		t.Fatalf("deleting what is not there: %v", err)
	}
	if err := s.PutBlock(event.Block{}); err == nil {
		t.Fatal("a block without a target was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	list, err := s.Blocks()
	if err != nil || len(list) != 1 || list[0].Reason != "second" {
		t.Fatalf("found %+v, %v", list, err)
	}
}

func TestLabelsStandOnAlerts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	e := alertEvent(epoch, "x")
	if err := s.PutEvent(e); err != nil {
		t.Fatal(err)
	}
	if err := s.SetLabel(e.ID, Label{State: "maybe"}); err == nil {
		t.Fatal("label maybe was taken")
	}
	if err := s.SetLabel(e.ID, Label{State: "confirmed", By: "op", At: epoch}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if got, err := s.Event(e.ID); err != nil || got.Alert.Label != "confirmed" {
		t.Fatalf("found %+v, %v", got, err)
	}
	if err := s.SetLabel(e.ID, Label{}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Event(e.ID); err != nil || got.Alert.Label != "" || len(s.Labels()) != 0 {
		t.Fatalf("taken back: %+v, %v", got, err)
	}
}

func TestModels(t *testing.T) {
	now := epoch
	s := open(t, t.TempDir(), Options{KeepModels: 2, Now: func() time.Time { now = now.Add(time.Second); return now }})
	weights := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 45_000) }
	for i := range 6 {
		m := event.Model{Hash: fmt.Sprint("h", i), Parent: fmt.Sprint("h", i-1), Metrics: map[string]float64{"auc": 0.9}}
		if err := s.PutModel(m, weights(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Active("self"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("an empty slot: %v", err)
	}
	if err := s.SetActive("self", "h9"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a model that is not here: %v", err)
	}
	if err := s.SetActive("self", "h0"); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateModel(event.Model{Hash: "h0", State: "active"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	// h0 is in use; of the others the two newest keep their weights.
	for i, kept := range []bool{true, false, false, false, true, true} {
		m, b, err := s.Model(fmt.Sprint("h", i))
		if err != nil || m.Bytes != 45_000 || m.Dropped == kept {
			t.Errorf("h%d: %+v, %v", i, m, err)
		}
		if kept && !bytes.Equal(b, weights(i)) || !kept && b != nil {
			t.Errorf("h%d has %d bytes of weights", i, len(b))
		}
	}
	list, err := s.Models()
	if err != nil || len(list) != 6 || list[0].Hash != "h0" || list[0].State != "active" || len(list[0].Slots) != 1 {
		t.Fatalf("found %+v, %v", list, err)
	}
	if err := s.SetActive("self", "h1"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a model without weights was put to use: %v", err)
	}
	if err := s.SetActive("self", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Active("self"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a cleared slot: %v", err)
	}
}

func TestValues(t *testing.T) {
	for name, o := range map[string]Options{"memory": {InMemory: true}, "disk": {}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), o)
			for _, n := range []int{0, 1, 70_000, partSize, partSize + 1, 3<<20 + 5, 10} {
				want := bytes.Repeat([]byte("hedgerow"), n/8+1)[:n]
				if err := s.Save("k", want); err != nil {
					t.Fatal(err)
				}
				got, err := s.Load("k")
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came back as %d, %v", n, len(got), err)
				}
			}
			if n := countKeys(t, s, pPart); n != 0 {
				t.Fatalf("%d parts of replaced values are left", n)
			}
			if err := s.Save("big", make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("over the limit: %v", err)
			}
			if err := s.Delete("k"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load("k"); !errors.Is(err, ErrNotFound) {
				t.Fatalf("a deleted value: %v", err)
			}
		})
	}
}

func countKeys(t *testing.T, s *Store, prefix byte) int {
	t.Helper()
	n := 0
	_, err := s.prune([]byte{prefix}, func([]byte, int64) verdict { n++; return keep })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A crash between the parts of a value and its head leaves parts without one.
func TestOrphanedPartsAreSwept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	big := bytes.Repeat([]byte{7}, 2*partSize)
	if err := s.Save("whole", big); err != nil {
		t.Fatal(err)
	}
	if err := s.submit(&request{class: classValue, ops: []op{{partKey(12345, 0), []byte("orphan")}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if n := countKeys(t, s, pPart); n != 2 {
		t.Fatalf("%d parts, want the 2 of the whole value", n)
	}
	if got, err := s.Load("whole"); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// flowRow must carry every field of event.Flow.
func TestFlowRowCarriesEveryField(t *testing.T) {
	var f event.Flow
	v := reflect.ValueOf(&f).Elem()
	for i := range v.NumField() {
		switch x := v.Field(i); x.Kind() {
		case reflect.String:
			x.SetString(fmt.Sprint("s", i))
		case reflect.Bool:
			x.SetBool(true)
		case reflect.Float64:
			x.SetFloat(float64(i) + 0.5)
		case reflect.Int64:
			x.SetInt(int64(i + 1))
		case reflect.Pointer:
			x.Set(reflect.ValueOf(&event.TLS{JA4: "t", Version: "TLS 1.3", Server: "shop.example", Protocol: "h2", QUIC: true, ECH: true}))
		default:
			x.SetUint(uint64(i + 1))
		}
	}
	want := Flow{Archived: epoch, Flow: f, Vector: []byte{1, 2}}
	s := open(t, "", Options{InMemory: true, Now: func() time.Time { return epoch }})
	if err := s.AppendFlows([]Flow{want}); err != nil {
		t.Fatal(err)
	}
	for got, err := range s.Flows(time.Time{}, time.Time{}) {
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("found %+v, %v", got, err)
		}
		return
	}
	t.Fatal("no flow")
}

// oldRow is a row of the first form: without what the TLS client said.
func oldRow(t testing.TB, r flowRow) []byte {
	t.Helper()
	r.TLS = nil
	b, err := cbor.Marshal(r)
	if err != nil || b[0] != rowHead || b[len(b)-1] != cborNull {
		t.Fatalf("a row is not what the archive takes it for: %x, %v", b, err)
	}
	b[0] = rowHead1
	return b[:len(b)-1]
}

// Rows of both forms may lie side by side in one group.
func TestRowsOfTheFirstForm(t *testing.T) {
	old := flowRow{Proto: "tcp", Src: "10.0.0.1", SrcPort: 4000, P: 0.5, Vector: []byte{1, 2, 3}}
	now := flowRow{Proto: "udp", Vector: []byte{4}, TLS: &event.TLS{Server: "shop.example", QUIC: true}}
	b, err := cbor.Marshal(now)
	if err != nil {
		t.Fatal(err)
	}
	group := slices.Concat(oldRow(t, old), b, oldRow(t, old))
	var got []Flow
	if err := eachRow(group, epoch, func(f Flow, err error) bool {
		got = append(got, f)
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []Flow{old.flow(epoch), now.flow(epoch), old.flow(epoch)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, expected %+v", got, want)
	}
	if err := eachRow(group[:len(group)-2], epoch, func(Flow, error) bool { return true }); !errors.Is(err, ErrDamaged) {
		t.Errorf("a row that is cut short: %v", err)
	}
}

func TestFlowsByTime(t *testing.T) {
	now := epoch
	s := open(t, "", Options{InMemory: true, Now: func() time.Time { return now }})
	for i := range 5 {
		now = epoch.Add(time.Duration(i) * time.Minute)
		batch := make([]Flow, 1000)
		for j := range batch {
			batch[j] = Flow{Flow: event.Flow{Proto: "tcp", DstPort: uint16(i)}, Vector: make([]byte, 256)}
		}
		if err := s.AppendFlows(batch); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for f, err := range s.Flows(epoch.Add(time.Minute), epoch.Add(3*time.Minute)) {
		if err != nil || f.Flow.DstPort != 1 && f.Flow.DstPort != 2 {
			t.Fatalf("found %+v, %v", f, err)
		}
		n++
	}
	if st := s.Stats(); n != 2000 || st.Flows != 5000 {
		t.Fatalf("%d flows in the window, %d in all", n, st.Flows)
	}
	for range s.Flows(time.Time{}, time.Time{}) {
		n--
		if n == 1990 {
			break // must not hang or complain
		}
	}
	if err := s.AppendFlows([]Flow{{Vector: make([]byte, maxVector+1)}}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a vector over the limit: %v", err)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s, err := Open("", Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.PutEvent(peerEvent(epoch, "a")); !errors.Is(err, ErrClosed) {
		t.Fatalf("found %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{MaxBytes: 1}, {RetainFlows: -1}, {MaxFlows: -1}} {
		o.InMemory = true
		if s, err := Open("", o); err == nil {
			_ = s.Close()
			t.Errorf("%+v was taken", o)
		}
	}
}

// The database's own errors may quote values in full; what leaves the package
// never does.
func TestCausesAreOurWords(t *testing.T) {
	secret := "very-secret-value"
	for _, err := range []error{
		fmt.Errorf("Value with size 99 exceeded 1 limit. Value:\n%s", secret),
		fmt.Errorf("file does not exist for table %s", secret),
		fmt.Errorf("checksum mismatch %s", secret),
	} {
		if got := cause(err); got == nil || strings.Contains(got.Error(), secret) {
			t.Errorf("found %v", got)
		}
	}
}
