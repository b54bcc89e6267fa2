package dataset

import (
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
)

// Stratosphere is the name of the campaigns that Campaigns lists.
const Stratosphere = "stratosphere"

// Campaign is what attackers did, in a capture or a log of flows.
type Campaign struct {
	Name string
	File string
	// Of says that a flow is the attacker's, by the flow and by what the log says
	// of it; nil is all. The others are of whoever was there at the same time.
	Of func(r *flow.Record, class flowlog.Class) bool
}

// Labelled takes the flows that their log calls attacks.
func Labelled(_ *flow.Record, class flowlog.Class) bool { return class == flowlog.Attack }

// NotHarmless takes the flows that their log calls attacks, and all of what is not labelled.
func NotHarmless(_ *flow.Record, class flowlog.Class) bool {
	return class == flowlog.Attack || class == flowlog.Unlabelled
}

// Campaigns are the attacks of Stratosphere's logs and of the captures and logs
// beside Slips, below a folder of data sets. What is an attack there is said by
// the logs' labels or by their descriptions, never by what is found.
func Campaigns(data string) []Campaign {
	zeek, slips := filepath.Join(data, "stratosphere-zeek"), filepath.Join(data, "slips", "dataset")
	return []Campaign{
		{"NjRAT", filepath.Join(zeek, "001-zeek-scenario-malicious", "labeled-conn.log"), Labelled},
		{"Android RAT", filepath.Join(zeek, "003-zeek-scenario-malicious", "conn.log"), toPort(1337)},
		{"DGA", filepath.Join(zeek, "005-zeek-scenario-malicious", "conn.log"), talk},
		{"nmap", filepath.Join(zeek, "002-zeek-scenario-port-scanning", "conn.log.gz"), nil},
		{"SSH guessing", filepath.Join(slips, "test19-malicious-ssh", "malicious-ssh-bruteforce.pcap"), nil},
		{"scan of addresses", filepath.Join(slips, "port-scans", "horizontal", "conn.log"), nil},
		{"scan of ports", filepath.Join(slips, "port-scans", "vertical", "conn.log"), nil},
		{"scan of ports, Argus", filepath.Join(slips, "test11-portscan.binetflow"), nil},
		{"scan with ICMP", filepath.Join(slips, "test12-icmp-portscan.pcap"), nil},
	}
}

// toPort takes TCP flows to a port, as the description of the Android RAT names it.
func toPort(port uint16) func(*flow.Record, flowlog.Class) bool {
	return func(r *flow.Record, _ flowlog.Class) bool {
		return r.Key.Proto == flow.TCP && r.Responder().Port() == port
	}
}

// talk takes what a machine under a botnet's control says, without the
// messages by which IPv6 keeps itself going.
func talk(r *flow.Record, _ flowlog.Class) bool {
	return r.Key.Proto == flow.TCP || r.Key.Proto == flow.UDP
}

// Hosts are the logs of three machines of one network, a day each, whose flows
// are labelled.
func Hosts(data string) (files []string) {
	for _, h := range []string{"008-zeek-mixed", "010-zeek-mixed", "011-zeek-mixed"} {
		files = append(files, filepath.Join(data, "stratosphere-zeek", h, "data", "conn.log.labeled.gz"))
	}
	return files
}
