// Package store keeps what a site must not forget: the log of events, the
// blocks that stand, models with their lineage, the operator's labels, small
// values of other packages (sequence numbers, round state), and a bounded
// archive of flows. It is the only importer of Badger, and no Badger type,
// error or word leaves it.
//
// Duties and promises:
//
//   - A write that returned nil survives kill -9 and, as far as the disk keeps
//     its promise of fsync, loss of power. Writers wait for the sync together,
//     so many at once cost little more than one.
//   - Every write has a number in a ledger, hash-chained entry to entry, and
//     the last number is also kept in a small file outside the database. When
//     the database comes back with less than was acknowledged (it opens a
//     damaged log silently shortened), Open says how many writes are missing.
//   - A folder of another version, of another program, damaged beyond opening,
//     or in use, is refused with one line, and nothing in it is changed.
//   - MaxBytes and the retention times are kept by Maintain, oldest flows
//     first. When the disk itself is nearly full, writes are refused with
//     ErrNoSpace before the database can be hurt.
//
// The folder holds FORMAT (version and identity), LOCK (with the owner's
// process id), WITNESS (the last acknowledged number) and db (the database).
package store
