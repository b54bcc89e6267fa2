package softplane

import (
	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

var _ dataplane.Bulk = (*Plane)(nil)

// ReplaceBulk makes entries the whole bulk set; see dataplane.Bulk.
func (p *Plane) ReplaceBulk(entries []dataplane.Listed) error {
	return p.locked(func() error { return p.rules.ReplaceBulk(p.opts.Now(), entries, p.opts.Bulk) })
}

// BulkState says what of the bulk set is in force by the plane's clock.
func (p *Plane) BulkState() (s dataplane.BulkState, err error) {
	err = p.locked(func() error {
		s = p.rules.BulkState(p.opts.Now())
		return nil
	})
	return s, err
}
