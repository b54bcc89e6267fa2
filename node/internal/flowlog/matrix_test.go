package flowlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// form is one kind of log, with a line that is right.
type form struct {
	name   string
	head   func(fields []string) string // nil: a line is a JSON object
	comma  string
	fields []string
	values []string
	// Which field is the time, an address, a port, a number of packets, and a
	// duration or the end of one; "" has none.
	time, addr, port, packets, span string
	spare                           string // a field that may be missing
	backwards                       string // a span below 0
}

func headCSV(comma string) func([]string) string {
	return func(fields []string) string { return strings.Join(fields, comma) + "\n" }
}

func forms() []form {
	zeek := strings.Fields("ts id.orig_h id.orig_p id.resp_h id.resp_p proto duration orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes history conn_state")
	zeekRow := strings.Fields("1700000000.5 10.0.0.1 4000 198.51.100.2 443 udp 1.5 5 700 4 900 Dd SF")
	return []form{
		{
			name: "zeek", comma: "\t", fields: zeek, values: zeekRow,
			head: func(f []string) string {
				return "#separator \\x09\n#unset_field\t-\n#path\tconn\n#fields\t" + strings.Join(f, "\t") + "\n"
			},
			time: "ts", addr: "id.orig_h", port: "id.resp_p", packets: "orig_pkts", span: "duration", spare: "history", backwards: "-1.5",
		},
		{
			name: "zeek json", fields: zeek, values: zeekRow,
			time: "ts", addr: "id.orig_h", port: "id.resp_p", packets: "orig_pkts", span: "duration", spare: "history", backwards: "-1.5",
		},
		{
			name:   "suricata",
			fields: strings.Fields("timestamp flow_id event_type src_ip src_port dest_ip dest_port proto flow.pkts_toserver flow.pkts_toclient flow.bytes_toserver flow.bytes_toclient flow.start flow.end app_proto"),
			values: strings.Fields("2026-01-02T00:00:02Z 1 flow 10.0.0.1 4000 198.51.100.2 443 UDP 5 4 700 900 2026-01-02T00:00:00Z 2026-01-02T00:00:01Z quic"),
			time:   "flow.start", addr: "src_ip", port: "dest_port", packets: "flow.pkts_toserver", span: "flow.end", spare: "app_proto", backwards: "2026-01-01T23:59:59Z",
		},
		{
			name: "argus", comma: ",", head: headCSV(","),
			fields: strings.Split("StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,SrcPkts,Label", ","),
			values: strings.Split("2026/01/02 00:00:00.5,1.5,udp,10.0.0.1,4000,<->,198.51.100.2,443,CON,9,1600,700,5,x", ","),
			time:   "StartTime", addr: "SrcAddr", port: "Dport", packets: "TotPkts", span: "Dur", spare: "Label", backwards: "-1.5",
		},
		{
			name: "nfdump", comma: ",", head: headCSV(","),
			fields: strings.Split("ts,te,td,sa,da,sp,dp,pr,flg,ipkt,ibyt,opkt,obyt", ","),
			values: strings.Split("2026-01-02 00:00:00,2026-01-02 00:00:01,1,10.0.0.1,198.51.100.2,4000,443,UDP,......,5,700,4,900", ","),
			time:   "ts", addr: "sa", port: "dp", packets: "ipkt", span: "td", spare: "flg", backwards: "-1",
		},
		{
			name: "westermo", comma: ",", head: headCSV(","),
			fields: strings.Split("sAddress,rAddress,protocol,start,end,sPackets,rPackets,sBytesSum,rBytesSum,sttl,NST_M_Label", ","),
			values: strings.Split("10.0.0.1,10.0.0.2,IPV4-UDP,1678440573.5,1678440574.5,5,4,700,900,64.0,Normal", ","),
			time:   "start", addr: "sAddress", packets: "sPackets", span: "end", spare: "sttl", backwards: "1678440570",
		},
		{
			name: "cic", comma: ",", head: headCSV(", "),
			fields: strings.Split("Source IP,Source Port,Destination IP,Destination Port,Protocol,Timestamp,Flow Duration,Total Fwd Packets,Total Backward Packets,Label", ","),
			values: strings.Split("10.0.0.1,4000,198.51.100.2,443,17,02/01/2026 03:04:05,1500000,5,4,BENIGN", ","),
			time:   "Timestamp", addr: "Source IP", port: "Destination Port", packets: "Total Fwd Packets", span: "Flow Duration", spare: "Timestamp", backwards: "-5",
		},
	}
}

// line writes the fields in an order, with some values changed.
func (f *form) line(t *testing.T, order []string, change map[string]string) string {
	t.Helper()
	out := make([]string, len(order))
	for i, name := range order {
		out[i] = f.values[slices.Index(f.fields, name)]
		if v, ok := change[name]; ok {
			out[i] = v
		}
	}
	if f.head != nil {
		return strings.Join(out, f.comma) + "\n"
	}
	top := map[string]any{}
	for i, name := range order {
		in := top
		if group, rest, ok := strings.Cut(name, "."); ok && group == "flow" {
			if top[group] == nil {
				top[group] = map[string]any{}
			}
			in, name = top[group].(map[string]any), rest
		}
		in[name] = out[i]
		if _, err := json.Marshal(json.Number(out[i])); err == nil && name != "history" {
			in[name] = json.Number(out[i])
		}
	}
	b, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func (f *form) start(order []string) string {
	if f.head == nil {
		return ""
	}
	return f.head(order)
}

// TestEveryReaderNamesBadValues: whatever the log, a bad value between two lines that
// are right is named with file, line and field, and the two are used.
func TestEveryReaderNamesBadValues(t *testing.T) {
	for _, f := range forms() {
		for what, c := range map[string]struct{ field, value string }{
			"not a number":    {f.packets, "NaN"},
			"infinite":        {f.packets, "Inf"},
			"words":           {f.packets, "many"},
			"overflow":        {f.packets, "99999999999999999999999"},
			"negative":        {f.packets, "-3"},
			"span below 0":    {f.span, f.backwards},
			"span no number":  {f.span, "NaN"},
			"no address":      {f.addr, "10.0.0.256"},
			"port out of all": {f.port, "65536"},
			"no time":         {f.time, "yesterday"},
		} {
			if c.field == "" {
				continue
			}
			t.Run(f.name+"/"+what, func(t *testing.T) {
				good := f.line(t, f.fields, nil)
				head := f.start(f.fields)
				text := head + good + f.line(t, f.fields, map[string]string{c.field: c.value}) + good
				flows, rep := readAll(t, "some.log", []byte(text), Options{})
				if len(rep.Faults) != 1 || rep.RefusedLines() != 1 {
					t.Fatalf("expected one refused line: %v", rep.Words())
				}
				if e, n := rep.Faults[0], strings.Count(head, "\n")+2; e.Path != "some.log" || e.Line != n || e.Field != c.field || e.Want == "" {
					t.Errorf("%v (field %q, line %d): expected field %q of line %d", e, e.Field, e.Line, c.field, n)
				}
				if packetsOf(flows) != 2*packetsOf(f.read(t, good)) {
					t.Errorf("%d flows: expected what is about the line to be used", len(flows))
				}
			})
		}
	}
}

// read gives the flows of one text after the head.
func (f *form) read(t *testing.T, text string) []Flow {
	t.Helper()
	flows, rep := readAll(t, "some.log", []byte(f.start(f.fields)+text), Options{})
	if rep.RefusedLines() != 0 || len(flows) == 0 {
		t.Fatalf("a line that is right: %v", rep.Words())
	}
	return flows
}

// packetsOf all flows: halves that a reader joins are still counted.
func packetsOf(flows []Flow) (n uint64) {
	for i := range flows {
		n += uint64(flows[i].Record.Packets())
	}
	return n
}

// TestEveryReaderTakesOtherColumns: in another order, with columns that nobody knows,
// or without one that need not be, the same flow is read.
func TestEveryReaderTakesOtherColumns(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			want := f.read(t, f.line(t, f.fields, nil))[0].Record
			back := slices.Clone(f.fields)
			slices.Reverse(back)
			flows, rep := readAll(t, "some.log", []byte(f.start(back)+f.line(t, back, nil)), Options{})
			if len(flows) != 1 || flows[0].Record.Key != want.Key || flows[0].Record.Dir != want.Dir || flows[0].Record.Start != want.Start {
				t.Errorf("in another order: %v", rep.Words())
			}
			fewer := slices.DeleteFunc(slices.Clone(f.fields), func(s string) bool { return s == f.spare })
			flows, rep = readAll(t, "some.log", []byte(f.start(fewer)+f.line(t, fewer, nil)), Options{})
			if len(flows) != 1 || rep.RefusedLines() != 0 || flows[0].Record.Dir[0].Packets != want.Dir[0].Packets {
				t.Errorf("without %s: %v", f.spare, rep.Words())
			}
		})
	}
}

// TestEveryReaderToldOfAHalfLine: where a log ends within a line, as one that is still
// written does, that line is named and the others are used.
func TestEveryReaderToldOfAHalfLine(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			good, head := f.line(t, f.fields, nil), f.start(f.fields)
			flows, rep := readAll(t, "some.log", []byte(head+good+good[:len(good)*2/3]), Options{})
			if len(flows) != 1 || rep.RefusedLines() != 1 || len(rep.Faults) != 1 || rep.Faults[0].Line != strings.Count(head, "\n")+2 {
				t.Errorf("%d flows: %v", len(flows), rep.Words())
			}
		})
	}
}

// TestEveryReaderBoundsWhatItKeeps: of ever new hosts no more is remembered than was
// allowed, and every one of them is read.
func TestEveryReaderBoundsWhatItKeeps(t *testing.T) {
	const hosts = 3000
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(f.start(f.fields))
			for i := range hosts {
				b.WriteString(f.line(t, f.fields, map[string]string{f.addr: fmt.Sprintf("10.1.%d.%d", i>>8, i&255)}))
			}
			flows, rep := readAll(t, "some.log", []byte(b.String()), Options{Window: 16, MaxJoin: 16})
			seen := map[string]bool{}
			for i := range flows {
				seen[flows[i].Record.Initiator().Addr().String()] = true
			}
			if len(seen) != hosts || rep.RefusedLines() != 0 {
				t.Errorf("%d hosts of %d: %v", len(seen), hosts, rep.Words())
			}
		})
	}
}
