// Package flowlog turns the flow logs of other tools into the project's flow
// records, so that a site's past can teach and be searched.
//
// It reads Zeek's conn.log (TSV with columns in any order, and JSON; ssl.log,
// ssh.log and dns.log beside it are joined by uid), Suricata's EVE JSON (flow,
// tls, ssh, dns and alert records, joined by flow_id), Argus flows as CSV or
// TSV (the binetflow files of the CTU and Stratosphere sets), CSV exports of
// nfdump (NetFlow and IPFIX), and the flow tables of the Westermo and
// CICFlowMeter sets; each also gzipped, and each told by its content.
//
// What a log cannot tell is said in Record.Lacks and never invented: Zeek has no
// packet sizes, Suricata and Argus count link headers and padding with the bytes,
// NetFlow has no payload. A claim of a log is no proof: Validated is never set.
//
// Logs are hostile input. A line that cannot be understood is refused, counted by
// kind, and named with file, line, field and what was expected there; the lines
// after it are used. Memory does not grow with the file: lines, joins, pairs and
// the window that puts flows into the order of their ends are all bounded.
package flowlog
