package softplane

import (
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// class is a group of flows that share an idle time.
type class uint8

const (
	tcpUnanswered class = iota
	tcpAnswered
	other
	classes
)

// table holds the flows. Each class keeps its flows in the order of their last
// packets, so that neither a sweep nor an eviction looks at more flows than it
// ends.
type table struct {
	max            int
	idle           [classes]int64
	byKey          map[flow.Key]*state
	newest, eldest [classes]*state
	free           *state // states to use again, linked by elder
}

func newTable(size int, idle Idle) table {
	return table{max: size, byKey: map[flow.Key]*state{},
		idle: [classes]int64{int64(idle.TCPUnanswered), int64(idle.TCP), int64(idle.Other)}}
}

func (t *table) get(k flow.Key) *state { return t.byKey[k] }

// add makes an empty state for a key that has none.
func (t *table) add(k flow.Key) *state {
	s := t.free
	if s != nil {
		t.free = s.elder
		*s = state{}
	} else {
		s = &state{}
	}
	s.class = other
	if k.Proto == flow.TCP {
		s.class = tcpUnanswered
	}
	t.byKey[k] = s
	t.link(s)
	return s
}

func (t *table) remove(s *state) {
	delete(t.byKey, s.rec.Key)
	t.unlink(s)
	s.elder, t.free = t.free, s
}

// touch puts a flow in front of its class after a packet.
func (t *table) touch(s *state) {
	answered := s.class == tcpUnanswered && s.rec.Dir[0].Packets > 0 && s.rec.Dir[1].Packets > 0
	if !answered && t.newest[s.class] == s {
		return
	}
	t.unlink(s)
	if answered {
		s.class = tcpAnswered
	}
	t.link(s)
}

func (t *table) link(s *state) {
	s.newer, s.elder = nil, t.newest[s.class]
	if s.elder != nil {
		s.elder.newer = s
	} else {
		t.eldest[s.class] = s
	}
	t.newest[s.class] = s
}

func (t *table) unlink(s *state) {
	if s.newer != nil {
		s.newer.elder = s.elder
	} else {
		t.newest[s.class] = s.elder
	}
	if s.elder != nil {
		s.elder.newer = s.newer
	} else {
		t.eldest[s.class] = s.newer
	}
	s.newer, s.elder = nil, nil
}

// silent says whether a flow has had no packet for its idle time. A clock that
// jumped back by more than that time ends it too: its future may never come.
func (t *table) silent(s *state, now int64) bool {
	d := now - s.rec.Last
	return d >= t.idle[s.class] || d <= -t.idle[s.class]
}

// oldest returns a flow that a sweep at now ends, or nil.
func (t *table) oldest(now int64) *state {
	for c := range t.eldest {
		if s := t.eldest[c]; s != nil && t.silent(s, now) {
			return s
		}
	}
	return nil
}

// longestSilent returns the flow whose last packet is the longest ago.
func (t *table) longestSilent() *state {
	var found *state
	for _, s := range t.eldest {
		if s != nil && (found == nil || s.rec.Last < found.rec.Last) {
			found = s
		}
	}
	return found
}

// victim returns the flow to give up for a new one, or nil while there is room.
func (t *table) victim() *state {
	if len(t.byKey) < t.max {
		return nil
	}
	return t.longestSilent()
}
