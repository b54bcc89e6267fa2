// Package telemetry is how a site speaks of itself: its log, its metrics, and
// the small HTTP listener that serves them. The log carries the same records
// as the store and the commands (package event), so that whoever collects logs
// needs no second schema.
//
// Duties: there is no global logger and no global registry; two sites in one
// process do not see each other. Other packages return values or events, and
// only node hands them to this one. Names of metrics follow Prometheus's
// conventions (base units, _total for counters), names of log keys are the
// constants of keys.go.
package telemetry
