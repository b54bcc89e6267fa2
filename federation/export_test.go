package federation

// HandlerOf is a member's face to its transport.
func HandlerOf(m *Member) Handler { return (*handler)(m) }
