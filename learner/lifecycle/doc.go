// Package lifecycle decides which model judges a site: a pure state machine
// that takes proposals, measurements, the operator's word and the time, and
// returns what should happen. It has no clock, disk, goroutine or model: whoever
// drives it measures (Examine), scores beside (Roles), and keeps (Tell).
//
// A model begins as a candidate. It passes a gate on traffic that is later than
// what it was trained on and on the site's private canaries (behaviours that
// were confirmed here, and traffic that this site knows to be normal), then
// scores beside the active model without a say (shadow), then decides for a
// share of the hosts (canary), then for all (active). The gate is asked again
// at each step. A new active model is watched against its predecessor on the
// same traffic, and goes back by itself when it misbehaves. What was replaced,
// refused or rolled back is retired; its lineage stays.
//
// What always holds, whatever comes in and in whatever order: at most one model
// is active; none is that did not pass the gate; and from every state in which
// one is active, Rollback leads to an earlier one or, where there is none, to
// no model, with the counting rules left to judge. Small regressions do not add
// up: every promotion of a model of the site's own spends from one allowance,
// and only improvements pay back (Options.FalseAlarms, Options.Detection).
//
// Methods that return an error leave the state as it was.
package lifecycle
