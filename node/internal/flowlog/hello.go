package flowlog

import (
	"encoding/json"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
)

// greeted gives a flow what the log tells of its TLS client's first message. A
// JA4 says most of it. Without one, only that is taken which follows of what the
// log has of the session: who was named, a protocol that was agreed on and thus
// offered, version 1.3, above which there is none. The fingerprint is then JA3:
// another text for the same client, and familiar or not like any.
func (f *Flow) greeted() {
	m, rec := &f.Meta, &f.Record
	h, ok := hello.Read(m.JA3)
	if !ok {
		if m.JA3 != "" {
			h.Print, h.Told = flow.PrintOf(m.JA3), flow.ToldPrint
		}
		if m.SNI || m.TLS != "" {
			h.Named, h.Told = m.SNI, h.Told|flow.ToldName
		}
		if newest(m.TLS) {
			h.Version, h.Told = flow.TLS13, h.Told|flow.ToldVersion
		}
		h.QUIC = rec.Key.Proto == flow.UDP
	}
	if m.ALPN != "" && h.Told&flow.ToldALPN == 0 {
		h.Protocol, h.Told = m.ALPN, h.Told|flow.ToldALPN
	}
	if h.Told == 0 {
		return
	}
	rec.Hello, rec.Lacks = &h, rec.Lacks&^flow.LackHello
}

// newest says that a log's version of TLS is 1.3, in the writing of any tool.
func newest(version string) bool {
	v := strings.NewReplacer("v", "", " ", "", ".", "").Replace(strings.ToLower(version))
	return v == "tls13"
}

// firstOf is the first text of a JSON list, "" when it is none.
func firstOf(list string) string {
	var all []string
	if json.Unmarshal([]byte(list), &all) != nil || len(all) == 0 {
		return ""
	}
	return short(all[0])
}
