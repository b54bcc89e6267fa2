// Package history reads a site's past: captures and other tools' flow logs, as
// vectors of the feature schema, through the gate of data quality, with what is
// known of each flow. It is what `hedgerow learn history` and `hedgerow replay
// --learn` are made of. Formats are found by content. Memory is bounded whatever
// the files hold; nothing is stored.
package history
