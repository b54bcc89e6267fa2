package softplane

import "github.com/hedgerow-mesh/hedgerow/dataplane/flow"

// KeyOf is the key of the flow that a captured frame belongs to. ok is false for
// what belongs to none: not IP, malformed, a later fragment.
func KeyOf(link LinkType, frame []byte) (k flow.Key, ok bool) {
	var q parsed
	q.parse(link, frame, 0, true)
	return q.Key, q.ip && q.bad == fine && !q.NoPorts
}
