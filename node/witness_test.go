package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

const said = `{"time":"2026-03-01T12:00:10Z","src":"203.0.113.9","src_port":4000,"dst":"10.0.0.5","dst_port":22,"proto":"tcp","label":"guessing","weight":0.5,"source":"honeypot"}` + "\n"

// post sends lines to the intake.
func (x *learned) post(lines string) (status int, body string) {
	x.t.Helper()
	r := httptest.NewRecorder()
	api.IntakeHandler(x.Node).ServeHTTP(r, httptest.NewRequest(http.MethodPost, "/v1/labels", strings.NewReader(lines)))
	b, err := io.ReadAll(r.Result().Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return r.Code, string(b)
}

// ends lets a flow of ssh end that began at noon.
func (x *learned) ends(port uint16) {
	x.t.Helper()
	k, _ := flow.NewKey(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port), netip.MustParseAddrPort("10.0.0.5:22"), flow.TCP)
	r := flow.Record{Key: k, Start: x.now.UnixNano(), Last: x.now.Add(20 * time.Second).UnixNano(), RespInside: true}
	v := x.ordinary()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.attested(x.now, &dataplane.Event{Kind: dataplane.EventEnd, Record: r}, &v)
}

// TestToolsLabelFlows: what a tool says teaches with its weight, whether its flow
// ended before or ends after, and outlasts a restart; a broken line is refused with
// what was expected, and the others are taken.
func TestToolsLabelFlows(t *testing.T) {
	x := newLearned(t)
	x.ends(4000)
	if code, body := x.post(said); code != http.StatusOK || !strings.Contains(body, `"accepted":1,"joined":1`) {
		t.Fatal(code, body)
	}
	if code, body := x.post(strings.Replace(said, "4000", "4001", 1)); code != http.StatusOK || !strings.Contains(body, `"joined":0`) {
		t.Fatal(code, body)
	}
	x.ends(4001)
	x.ends(4002)
	if a := x.learn.attacks; len(a) != 2 || a[1].Weight != 0.5 || a[1].Family != "guessing" || a[1].incident != "intake:honeypot" || a[1].V.Valid() != nil {
		t.Fatalf("%+v", a)
	}
	code, body := x.post(said + strings.Replace(said, `"tcp"`, `"ipx"`, 1) + strings.Replace(said, "4000", "4002", 1))
	if code != http.StatusBadRequest || !strings.Contains(body, `"line":2,"field":"proto","found":"ipx","expected":"tcp, udp, icmp or icmpv6"`) || !strings.Contains(body, `"accepted":2,"joined":1`) {
		t.Error(code, body)
	}
	x.learn.keepWitnessed()
	x.flush()
	x.restart()
	if len(x.learn.attacks) != 3 {
		t.Errorf("%d labels after a start", len(x.learn.attacks))
	}
	x.Node.o.Learner.Enabled = false
	if code, body := x.post(said); code != http.StatusBadRequest || !strings.Contains(body, "the learner is off") {
		t.Error(code, body)
	}
}

// TestALoudToolCrowdsOutNobody: a tool keeps its newest words within its bound, and
// what people confirmed stays.
func TestALoudToolCrowdsOutNobody(t *testing.T) {
	x := newLearned(t)
	for range maxAttacks - perTool/2 {
		x.learn.attacks = append(x.learn.attacks, labelled{incident: "people"})
	}
	for i := range perTool * 2 {
		x.learn.mu.Lock()
		x.learn.addWitness(labelled{incident: "intake:a"})
		if i%4 == 0 {
			x.learn.addWitness(labelled{incident: "intake:b"})
		}
		x.learn.mu.Unlock()
	}
	n := map[string]int{}
	for _, a := range x.learn.attacks {
		n[a.incident]++
	}
	if len(x.learn.attacks) != maxAttacks || n["people"] != maxAttacks-perTool/2 || n["intake:a"] == 0 || n["intake:b"] == 0 {
		t.Errorf("%v", n)
	}
}

// TestOnlyLabelsAreTaken: the intake answers nothing else of the daemon.
func TestOnlyLabelsAreTaken(t *testing.T) {
	x := newLearned(t)
	for _, path := range []string{"/v1/status", "/v1/stop", "/v1/label", "/"} {
		r := httptest.NewRecorder()
		api.IntakeHandler(x.Node).ServeHTTP(r, httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}")))
		if r.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.Code)
		}
	}
}
