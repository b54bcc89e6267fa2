package config

import "strings"

// crossFlood checks the bounds for floods as a whole.
func (p *parser) crossFlood() {
	err := p.cfg.Flood.Validate()
	if err == nil {
		return
	}
	text := strings.TrimPrefix(err.Error(), "flood: ")
	key, rest, ok := strings.Cut(text, ": ")
	switch {
	case ok && (key == "protected" || key == "dark"):
		p.problem("flood."+key, "%s", rest)
	default:
		p.problem("flood", "%s", text)
	}
}
