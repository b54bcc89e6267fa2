package federation

// HandlerOf is a member's face to its transport.
func HandlerOf(m *Member) Handler { return (*handler)(m) }

// Fork makes a member believe that two sealed blocks conflict.
func Fork(m *Member, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopAdopting(why)
}
