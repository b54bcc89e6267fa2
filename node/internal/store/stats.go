package store

// Stats are figures of a store.
type Stats struct {
	Events     int     `json:"events"`
	EventBytes int64   `json:"event_bytes"`
	Flows      int     `json:"flows"` // in the archive
	FlowBytes  int64   `json:"flow_bytes"`
	Labels     int     `json:"labels"`
	Writes     uint64  `json:"writes"` // since the store was made
	DiskBytes  int64   `json:"disk_bytes"`
	MaxBytes   int64   `json:"max_bytes"`
	FreeBytes  int64   `json:"free_bytes"` // of the disk, -1 when unknown or in memory
	Missing    Missing `json:"missing"`
	Damaged    bool    `json:"damaged"` // a checksum of the database does not fit
}

// Stats counts what is here now. It walks the folder's files: not for every packet.
func (s *Store) Stats() Stats {
	c := s.counts.read()
	st := Stats{
		Events: c.events, EventBytes: c.eventBytes, Flows: c.flows, FlowBytes: c.flowBytes,
		Labels: len(s.Labels()), Writes: s.ledgerLast.Load(), DiskBytes: s.diskBytes(),
		MaxBytes: s.opt.MaxBytes, FreeBytes: -1, Missing: s.missed,
		Damaged: s.damaged.Load(),
	}
	if s.folder != nil {
		if free, err := freeBytes(s.dir); err == nil {
			st.FreeBytes = int64(free)
		}
	}
	return st
}
