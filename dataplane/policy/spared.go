package policy

// Spared says that the never-block list, or what a link cannot work without,
// forbids dropping the packet. Built-in exceptions have a budget, and asking
// charges it: ask only of a packet that would drop.
func (t *Table) Spared(p *Packet, now int64) bool { return t.neverDrop(p, now) }
