package config

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines finds the line of every key, under the dotted names that parser
// uses (mesh.peer[0].id). The text has been accepted by the TOML decoder
// before, so a parse error here only means fewer line numbers.
func keyLines(b []byte) map[string]int {
	lines := map[string]int{}
	counts := map[string]int{}
	prefix := ""
	var p unstable.Parser
	p.Reset(b)
	for p.NextExpression() {
		e := p.Expression()
		key, line := dotted(&p, e)
		switch e.Kind {
		case unstable.Table:
			prefix = key
			note(lines, prefix, line)
		case unstable.ArrayTable:
			prefix = fmt.Sprintf("%s[%d]", key, counts[key])
			counts[key]++
			note(lines, key, line)
			note(lines, prefix, line)
		case unstable.KeyValue:
			full := key
			if prefix != "" {
				full = prefix + "." + key
			}
			note(lines, full, line)
			inline(&p, lines, full, e.Value(), line)
		}
	}
	return lines
}

// inline gives the keys of inline tables the line of the key that holds them.
func inline(p *unstable.Parser, lines map[string]int, prefix string, v *unstable.Node, line int) {
	it := v.Children()
	for i := 0; it.Next(); i++ {
		switch n := it.Node(); n.Kind {
		case unstable.KeyValue:
			key, _ := dotted(p, n)
			note(lines, prefix+"."+key, line)
			inline(p, lines, prefix+"."+key, n.Value(), line)
		case unstable.InlineTable:
			item := fmt.Sprintf("%s[%d]", prefix, i)
			note(lines, item, line)
			inline(p, lines, item, n, line)
		}
	}
}

func dotted(p *unstable.Parser, n *unstable.Node) (key string, line int) {
	if n.Kind != unstable.KeyValue && n.Kind != unstable.Table && n.Kind != unstable.ArrayTable {
		return "", 0
	}
	var parts []string
	for it := n.Key(); it.Next(); {
		k := it.Node()
		parts = append(parts, string(k.Data))
		if line == 0 {
			line = p.Shape(k.Raw).Start.Line
		}
	}
	return strings.Join(parts, "."), line
}

func note(lines map[string]int, key string, line int) {
	if _, ok := lines[key]; !ok {
		lines[key] = line
	}
}
