package flowlog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

const someJA4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"

// TestHellosOfLogs: what a log tells of a TLS client is in the record, what it
// does not tell is not known.
func TestHellosOfLogs(t *testing.T) {
	eve := func(tls string) string {
		return `{"timestamp":"2026-01-02T00:00:00Z","flow_id":1,"event_type":"tls","tls":` + tls + `}` + "\n" +
			`{"timestamp":"2026-01-02T00:00:00Z","flow_id":1,"event_type":"flow","src_ip":"10.0.0.1","src_port":1,"dest_ip":"10.0.0.2","dest_port":2,"proto":"TCP","app_proto":"tls","flow":{"pkts_toserver":9,"pkts_toclient":9,"bytes_toserver":900,"bytes_toclient":900,"start":"2026-01-02T00:00:00Z","end":"2026-01-02T00:00:01Z"}}` + "\n"
	}
	for what, c := range map[string]struct {
		eve  string
		want flow.Hello
	}{
		"with JA4": {`{"version":"TLS 1.2","sni":"shop.example","ja4":"` + someJA4 + `"}`,
			flow.Hello{Told: flow.ToldAll &^ flow.ToldECH, Named: true, Version: flow.TLS13, Ciphers: 15, Extensions: 16, Protocol: "h2", JA4: someJA4, Print: flow.PrintOf(someJA4)}},
		"with JA3": {`{"version":"TLS 1.2","ja3":{"hash":"e7d705a3286e19ea42f587b344ee6865"}}`,
			flow.Hello{Told: flow.ToldPrint | flow.ToldName, Print: flow.PrintOf("e7d705a3286e19ea42f587b344ee6865")}},
		"of 1.3": {`{"version":"TLS 1.3","sni":"shop.example","client_alpns":["h2","http/1.1"]}`,
			flow.Hello{Told: flow.ToldVersion | flow.ToldName | flow.ToldALPN, Version: flow.TLS13, Named: true, Protocol: "h2"}},
	} {
		flows, _ := readAll(t, "eve.json", []byte(eve(c.eve)), Options{})
		if len(flows) != 1 || flows[0].Record.Hello == nil || *flows[0].Record.Hello != c.want || flows[0].Record.Lacks&flow.LackHello != 0 {
			t.Errorf("%s: %+v, expected %+v", what, flows[0].Record.Hello, c.want)
		}
	}
	flows, _ := readAll(t, "eve.json", []byte(eve(`{"subject":"x"}`)), Options{})
	if len(flows) != 1 || flows[0].Record.Hello != nil || flows[0].Record.Lacks&flow.LackHello == 0 {
		t.Errorf("a record that tells nothing: %+v", flows)
	}
}

func TestHellosOfZeek(t *testing.T) {
	dir := t.TempDir()
	head := "#separator \\x09\n#unset_field\t-\n#empty_field\t(empty)\n"
	conn := head + "#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_pkts\torig_ip_bytes\torig_bytes\tresp_pkts\tresp_ip_bytes\tresp_bytes\thistory\tconn_state\n"
	ssl := head + "#path\tssl\n#fields\tts\tuid\tversion\tserver_name\tnext_protocol\n"
	for _, uid := range []string{"a", "b", "c", "d"} {
		conn += "1700000000.5\t" + uid + "\t10.0.0.1\t4000\t198.51.100.2\t443\ttcp\t1.5\t5\t700\t400\t4\t900\t600\tShADadFf\tSF\n"
	}
	ssl += "1700000000.5\ta\tTLSv13\tshop.example\th2\n" + "1700000000.5\tb\tTLSv12\t-\t-\n" + "1700000000.5\tc\t-\t-\t-\n"
	for name, text := range map[string]string{"conn.log": conn, "ssl.log": ssl} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(filepath.Join(dir, "conn.log"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[string]*feature.Vector{}
	for f, err := r.Next(); err == nil; f, err = r.Next() {
		var v feature.Vector
		feature.FromRecord(&v, &f.Record)
		got[f.UID] = &v
	}
	for uid, want := range map[string]map[string]float64{
		"a": {"tls_server_named": 1, "tls_alpn_web": 1, "tls_alpn": 1, "tls_version": 4},
		"b": {"tls_server_named": 0}, "c": {}, "d": {},
	} {
		for _, name := range []string{"tls_server_named", "tls_alpn", "tls_alpn_web", "tls_version", "tls_ciphers", "tls_extensions", "tls_ech"} {
			x, known := want[name]
			if i := feature.Index(name); got[uid].Known(i) != known || known && got[uid].Value(i) != x {
				t.Errorf("flow %s: %s is %v, expected %v (known %v)", uid, name, got[uid].Value(i), x, known)
			}
		}
	}
}
