package node

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// take does what an indicator in force asks for here, and says why not where it
// leads to nothing. The caller holds n.mu.
func (n *Node) take(x *wire.Indicator, author string, e federation.Effect) (why string) {
	r := enforce.Received{
		ID: x.ID, Author: author, Type: string(x.Type), Value: x.Value,
		Conf: x.Confidence, Sentence: x.Sentence, Expires: x.Expires, Limit: e == federation.Limit,
	}
	if enforce.Marks(r.Type) {
		return n.sensor.Mark(n.now(), r)
	}
	_, sees := n.o.Plane.(dataplane.Names)
	if x.Type == wire.TypeDomain && !sees {
		return "this packet path shows no DNS answers"
	}
	fx, why := n.machine.Indicator(n.now(), r)
	n.act(fx)
	if x.Type == wire.TypeDomain && why == "" {
		if err := n.watchNames(); err != nil {
			n.log.Error("dns answers are not watched: a shared domain has no effect", "value", x.Value, telemetry.KeyErr, err)
		}
	}
	return why
}

// behaviourPrefix begins an incident whose behaviour is meant, where a target is
// expected.
const behaviourPrefix = "behaviour:"

// shareBehaviour hands the bounds of what an operator confirmed, coarse ones of many
// flows, to the organisation's other sites.
func (n *Node) shareBehaviour(o api.Order) error {
	incident := strings.TrimPrefix(o.Target, behaviourPrefix)
	if !o.Share {
		return fmt.Errorf("%s: a behaviour blocks nobody: with --share flows like it are suspect at the other sites: %w", o.Target, errInvalid)
	}
	vs := n.learn.confirmed(incident)
	if len(vs) == 0 {
		return fmt.Errorf("incident %s: nobody confirmed it, or it is forgotten (`hedgerow confirm` does): %w", incident, errNotFound)
	}
	r, err := learner.NewRegion(vs)
	if err != nil {
		return fmt.Errorf("incident %s: its flows are too few or too unlike: %v: %w", incident, err, errInvalid)
	}
	return n.shareMark(o, wire.TypeBehaviour, r.String(), wire.MaxLife)
}

// confirmed are the vectors that a person's word on an incident taught.
func (l *learning) confirmed(incident string) (out []feature.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.attacks {
		if l.attacks[i].incident == incident && l.attacks[i].Weight >= 1 {
			out = append(out, l.attacks[i].V)
		}
	}
	return out
}

// fingerprintPrefix begins a fingerprint where a target is expected.
const fingerprintPrefix = "ja4:"

// shareFingerprint makes flows of a TLS client suspect here and at the
// organisation's other sites.
func (n *Node) shareFingerprint(o api.Order) error {
	value := strings.TrimPrefix(o.Target, fingerprintPrefix)
	if !o.Share {
		return fmt.Errorf("%s: a fingerprint blocks nobody: with --share its flows are suspect here and at the other sites: %w", o.Target, errInvalid)
	}
	return n.shareMark(o, wire.TypeFingerprint, value, wire.DefaultLife)
}

// shareMark looks for a value here, and has the other sites look for it.
func (n *Node) shareMark(o api.Order, typ wire.Type, value string, life time.Duration) error {
	a, err := enforce.ParseAction(o.Action)
	if err != nil {
		return forAPI(err)
	}
	d := cmp.Or(time.Duration(o.Seconds*float64(time.Second)), life)
	if err := n.mayShareValue(a, string(typ), value, d, &o.Reason); err != nil {
		return forAPI(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	x := wire.Indicator{Type: typ, Value: value, Confidence: 1, Sentence: o.Reason, Expires: n.now().Add(d)}
	if why := n.take(&x, n.o.Site, federation.Enforce); why != "" {
		return fmt.Errorf("%s: %s: %w", o.Target, why, errInvalid)
	}
	n.marked.Store(o.Target, value)
	n.act([]enforce.Effect{{Share: &enforce.Share{
		Key: o.Target, Type: string(typ), Value: value, Conf: 1, Evidence: enforce.Operator, Sentence: x.Sentence, Expires: x.Expires,
	}}})
	return nil
}

// isMark says whether a target is a fingerprint or a behaviour.
func isMark(target string) bool {
	return strings.HasPrefix(target, fingerprintPrefix) || strings.HasPrefix(target, behaviourPrefix)
}

// forgetMark takes back what shareFingerprint or shareBehaviour said.
// The caller holds n.mu.
func (n *Node) forgetMark(target string) {
	value := strings.TrimPrefix(target, fingerprintPrefix)
	if v, ok := n.marked.Load(target); ok {
		value = v.(string)
	}
	n.sensor.Unmark(n.o.Site, value)
	n.act([]enforce.Effect{{Withdraw: target}})
}
