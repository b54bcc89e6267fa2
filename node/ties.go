package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// What a site knows of its ordinary traffic protects that traffic: from alarms about
// what is only rare, from the learner alone, from words alone, and from blocks that
// touch too much. It is stored now and then and at the end, so that a restart is no
// amnesia in which all that would be open, and familiar faces strangers for weeks.
const (
	keyFamiliar = "node/familiar"
	keyTies     = "node/ties"
	keyUses     = "node/uses"
	tiesForm    = 1
)

// keeper says when something is to be stored that changes all the time.
type keeper struct {
	every time.Duration
	last  time.Time
}

// due says so: when it is time, when the clock went back, and when the site ends.
func (k *keeper) due(now time.Time, end bool) bool {
	if age := now.Sub(k.last); !end && age >= 0 && age < k.every {
		return false
	}
	k.last = now
	return true
}

// keepTies stores it, if it is time or the site ends.
func (n *Node) keepTies(now time.Time, end bool) {
	if !n.ties.due(now, end) {
		return
	}
	n.mu.Lock()
	familiar, ties, uses := n.sensor.Familiar(), n.machine.Ties(), n.guard.Uses(now)
	n.mu.Unlock()
	for _, x := range []kv{{keyFamiliar, familiar}, {keyTies, encodeTies(ties)}, {keyUses, encodeUses(uses)}} {
		n.outbox.put(job{save: &x})
	}
}

// loadTies goes on from what was stored. What cannot be used is told, and begins anew.
func (n *Node) loadTies() error {
	now := n.now()
	n.ties = keeper{every: 10 * time.Minute, last: now}
	var relations, uses int
	for _, x := range []struct {
		key  string
		take func(b []byte) error
	}{
		{keyFamiliar, n.sensor.SetFamiliar},
		{keyTies, func(b []byte) error {
			t, err := decodeTies(b)
			relations = n.machine.Resume(now, t)
			return err
		}},
		{keyUses, func(b []byte) error {
			u, err := decodeUses(b)
			uses = n.guard.Resume(now, u)
			return err
		}},
	} {
		b, err := n.o.Store.Load(x.key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("node: %v", err)
		}
		if err := x.take(b); err != nil {
			n.log.Warn("what was stored of ordinary traffic cannot be used: it begins anew", "key", x.key, telemetry.KeyErr, err)
		}
	}
	if relations+uses > 0 {
		n.log.Info("ordinary traffic is known from before the start", "ties", relations, "hosts_and_services", uses)
	}
	return nil
}

func encodeTies(t enforce.Ties) []byte {
	b := binary.AppendUvarint([]byte{tiesForm}, unix(t.Born))
	b = binary.AppendUvarint(b, uint64(len(t.List)))
	for _, x := range t.List {
		b = appendParty(appendAddr(b, x.Host), x.Peer, x.Port, x.Proto)
		b = binary.AppendUvarint(b, uint64(x.N))
		for _, at := range []time.Time{x.First, x.Last, x.Cut} {
			b = binary.AppendUvarint(b, unix(at))
		}
	}
	return b
}

func decodeTies(b []byte) (t enforce.Ties, err error) {
	d := decoder{b: b}
	if form := d.take(1); d.err != nil || form[0] != tiesForm {
		return t, errors.New("ties: of another form")
	}
	t.Born = d.time()
	for range d.uvarint(uint64(len(b))) {
		x := enforce.Tie{Host: d.addr()}
		x.Peer, x.Port, x.Proto = d.party()
		x.N = int(d.uvarint(1 << 30))
		x.First, x.Last, x.Cut = d.time(), d.time(), d.time()
		if d.err != nil {
			break
		}
		t.List = append(t.List, x)
	}
	if d.err != nil || len(d.b) > 0 {
		return enforce.Ties{}, errors.New("ties: cut short or out of range")
	}
	return t, nil
}

func encodeUses(uses []policy.Use) []byte {
	b := binary.AppendUvarint([]byte{tiesForm}, uint64(len(uses)))
	for _, u := range uses {
		b = binary.AppendUvarint(appendParty(b, u.Addr, u.Port, u.Proto), unix(u.At))
	}
	return b
}

func decodeUses(b []byte) (uses []policy.Use, err error) {
	d := decoder{b: b}
	if form := d.take(1); d.err != nil || form[0] != tiesForm {
		return nil, errors.New("hosts and services: of another form")
	}
	for range d.uvarint(uint64(len(b))) {
		var u policy.Use
		u.Addr, u.Port, u.Proto = d.party()
		u.At = d.time()
		if d.err != nil {
			break
		}
		uses = append(uses, u)
	}
	if d.err != nil || len(d.b) > 0 {
		return nil, errors.New("hosts and services: cut short or out of range")
	}
	return uses, nil
}

// unix is a time in whole seconds, 0 for none.
func unix(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.Unix(), 0))
}

func (d *decoder) time() time.Time {
	if s := d.uvarint(1 << 36); s > 0 {
		return time.Unix(int64(s), 0)
	}
	return time.Time{}
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.AsSlice() // without a zone: an interface's name is no part of who somebody is
	return append(append(b, byte(len(raw))), raw...)
}

func (d *decoder) addr() netip.Addr {
	n := d.take(1)
	if d.err != nil {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(d.take(int(n[0])))
	if !ok && n[0] != 0 {
		d.fail()
	}
	return a
}

func appendParty(b []byte, a netip.Addr, port uint16, proto uint8) []byte {
	b = binary.BigEndian.AppendUint16(appendAddr(b, a), port)
	return append(b, proto)
}

func (d *decoder) party() (a netip.Addr, port uint16, proto uint8) {
	a = d.addr()
	if p := d.take(3); d.err == nil {
		port, proto = binary.BigEndian.Uint16(p), p[2]
	}
	return a, port, proto
}
