// Package learner is what a site knows of its own traffic and of attacks.
//
// A Model has up to three parts and a calibration for each. The self part, an
// autoencoder with this site's own scaling, knows what is normal here and
// never leaves the site. The attack part, a small classifier over the
// schema's fixed scales, knows behaviours that were confirmed here. The mesh's part, of
// the same form, knows what sites learnt together: its weights alone are what they
// share and average (TrainShared, WithShared). It stands beside the others with a small
// weight, so that it can add to what they find and hide hardly anything.
// Each says a raw score; a p-value from this site's own held-out normal flows
// makes them comparable, and one is combined from them so that it is valid
// whichever speaks. A Memory answers beside the model, at once and before any
// training, for near variants of what was confirmed a moment ago.
//
// What may teach normal waits in a Reservoir until it is old enough, less
// whatever was indicted meanwhile, with bounded shares for each host, peer and
// service. A candidate replaces a champion only through Gate, on traffic
// newer than either was trained on.
//
// Models are immutable and may be used by any number of goroutines, each with
// its own Scratch; Score allocates nothing. Training is deterministic: equal
// inputs and seed give equal bits on one architecture. Nothing here knows an
// address, a clock or a file.
package learner
