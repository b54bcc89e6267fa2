package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Found is what init learned of the machine.
type Found struct {
	Site      string   // host name
	Interface string   // "" leaves it to be found at each start
	Role      string   // "" is inside
	Why       string   // why this interface, in words
	Inside    []string // its networks
}

// Minimal writes the file of `hedgerow init`: what a site must decide, the
// rest as comments with the defaults. Parse reads it back.
func Minimal(w io.Writer, f Found) error {
	d := Default()
	var b strings.Builder
	fmt.Fprintf(&b, "# Hedgerow, site configuration. Every key is described in docs/configuration.md.\n"+
		"# What stands as a comment is the default. `hedgerow check` tests this file and the machine.\n\n")
	fmt.Fprintf(&b, "[site]\nname = %s\n", strconv.Quote(siteName(f.Site)))
	fmt.Fprintf(&b, "# state_dir = %q\n# socket = %q\n\n", d.Site.StateDir, d.Site.Socket)
	f.dataplane(&b)
	fmt.Fprintf(&b, "[policy]\n# suspend = %q              # how long an odd flow is held while more is found out\n"+
		"# block = %q                 # how long a decided block lasts\n# max_blocks_per_hour = %d\n\n",
		FormatDuration(d.Policy.Suspend), FormatDuration(d.Policy.Block), d.Policy.MaxBlocksPerHour)
	fmt.Fprintf(&b, "# Other sites of your organisation; without them this site is complete by itself.\n"+
		"# [mesh]\n# organisation = \"example\"\n# [[mesh.peer]]\n# name = \"birch\"\n"+
		"# id = \"...\"                   # as `hedgerow id` prints it there\n"+
		"# addrs = [\"/ip4/198.51.100.20/tcp/4400\"]\n\n")
	fmt.Fprintf(&b, "# Blocklists of others; try them first with `hedgerow feeds check FILE`.\n"+
		"# [[feed]]\n# name = \"example\"\n# path = \"/var/lib/blocklists/example.txt\"\n\n")
	fmt.Fprintf(&b, "[telemetry]\n# metrics = %q   # Prometheus; \"\" for none\n", d.Telemetry.Metrics)
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("write configuration: %v", err)
	}
	return nil
}

func (f Found) dataplane(b *strings.Builder) {
	b.WriteString("[dataplane]\n")
	if f.Interface == "" {
		b.WriteString("# interface = \"\"               # \"\" finds the inside interface at each start\n")
	} else {
		fmt.Fprintf(b, "interface = %s", strconv.Quote(f.Interface))
		if f.Why != "" {
			fmt.Fprintf(b, "   # %s", oneLine(f.Why))
		}
		b.WriteString("\n")
	}
	if f.Role == RoleHost {
		b.WriteString("role = \"host\"                 # this machine protects only itself\n")
	}
	if len(f.Inside) > 0 {
		quoted := make([]string, 0, len(f.Inside))
		for _, p := range f.Inside {
			quoted = append(quoted, strconv.Quote(p))
		}
		fmt.Fprintf(b, "# inside = [%s]   # the networks found there\n", oneLine(strings.Join(quoted, ", ")))
	}
	b.WriteString("mode = \"monitor\"              # nothing is dropped; \"enforce\" when you trust what you see\n" +
		"# never_block = [\"192.0.2.1 tcp/443\", \"198.51.100.0/24\"]\n\n")
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// siteName makes a host name into a site's name.
func siteName(host string) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	s := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, host), "-")
	if len(s) > 63 {
		s = strings.Trim(s[:63], "-")
	}
	if s == "" {
		return "site"
	}
	return s
}

// SiteName is the configured name, or the one that follows from the host's.
func (c *Config) SiteName(host string) string {
	if c.Site.Name != "" {
		return c.Site.Name
	}
	return siteName(host)
}
