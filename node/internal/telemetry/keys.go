package telemetry

// Keys of log records. Every package of node uses these, so that one word
// means one thing in every line.
const (
	KeyAction    = "action"
	KeyAddr      = "addr"
	KeyCause     = "cause"
	KeyComponent = "component"
	KeyCount     = "count"
	KeyDir       = "dir"
	KeyDuration  = "duration"
	KeyErr       = "err"
	KeyEvent     = "event"
	KeyFeed      = "feed"
	KeyFlow      = "flow"
	KeyID        = "id"
	KeyIncident  = "incident"
	KeyInterface = "interface"
	KeyMode      = "mode"
	KeyModel     = "model"
	KeyPeer      = "peer"
	KeyReason    = "reason"
	KeyRefused   = "refused"
	KeyRound     = "round"
	KeySite      = "site"
	KeySkipped   = "skipped"
	KeyTarget    = "target"
	KeyUntil     = "until"
	KeyVersion   = "version"
)
