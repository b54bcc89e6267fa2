package enforce

import (
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/names"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// sharedDomain looks for a domain by the mesh's word. It binds to what each inside
// host is told, as the operator's own domains do, and counts towards the caps. On
// too few words for a block there is nothing to do: a name has no new flows.
func (m *Machine) sharedDomain(now time.Time, r Received) (fx []Effect, why string) {
	name, err := names.Normalise(r.Value)
	if err != nil {
		return nil, err.Error()
	}
	if r.Limit {
		return nil, "a domain is looked for from the rung on that blocks"
	}
	if until, ok := m.dismissed["domain "+name]; ok && now.Before(until) {
		return nil, "dismissed here by the operator"
	}
	old := m.domains[name]
	switch {
	case old != nil && !old.shared():
		return nil, "the operator decided about it here"
	case old != nil && !old.block.Expires.Before(r.Expires):
		return nil, "already blocked"
	case old == nil && (len(m.domains) >= maxDomains || m.sharedDomains() >= maxShared):
		return nil, fmt.Sprintf("%d domains are looked for by others' word already", m.sharedDomains())
	}
	if limit := now.Add(7 * 24 * time.Hour); r.Expires.After(limit) {
		r.Expires = limit
	}
	e := m.event(now, event.KindBlock)
	e.Block = &event.Block{
		Target: name, Action: dataplane.Block.String(), State: "active", Source: sourceMesh + r.Author, Evidence: Shared,
		Reason: r.Sentence, ReasonID: m.reason(), Conf: r.Conf, Created: now, Expires: r.Expires,
	}
	m.watch(*e.Block)
	return []Effect{{Keep: e}}, ""
}

func (m *Machine) sharedDomains() (n int) {
	for _, d := range m.domains {
		if d.shared() {
			n++
		}
	}
	return n
}

// withdrawnDomain ends a domain that was looked for by an author's word.
func (m *Machine) withdrawnDomain(now time.Time, author, value string) []Effect {
	d := m.domains[value]
	if d == nil || !d.shared() {
		return nil
	}
	by := d.block.Source[len(sourceMesh):]
	if by != author && !(foreign(by) && foreign(author)) {
		return nil
	}
	return m.forgetDomain(now, d, "lifted", "withdrawn by "+author)
}

// ShareDomain hands a domain that the operator blocked to the organisation's other
// sites.
func (m *Machine) ShareDomain(name string) []Effect {
	d := m.domains[name]
	if d == nil || d.shared() {
		return nil
	}
	b := d.block
	return []Effect{{Share: &Share{Key: name, Type: typeDomain, Value: name, Conf: 1, Evidence: Operator, Sentence: b.Reason, Expires: b.Expires}}}
}
