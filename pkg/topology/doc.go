// Package topology reads the TOML file that describes a fleet: the box, its
// sensors, and the workers that read them.
//
//	topology.toml --> Load --> Node, Entries (checked, sorted out) --> each program binds its own table
//
// Reading is strict: an unknown key, a wrong type, a source that does not
// exist, a circle are errors, and all are reported at once, each with file,
// line, key, value, what is wanted, and the nearest known name (Problems).
//
// The package knows the tables [node], [sensor.NAME], [worker.NAME] and
// [job.NAME] and the keys that every entry has, such as the schedule of a job.
// All other keys of an entry are its program's own: the program decodes them
// with Entry.BindOwn into its config struct, whose tags are the one place where
// a key, its default and its meaning stand. Example prints that struct as a
// table to copy.
package topology
