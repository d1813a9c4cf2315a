// Package worker is the runtime that every perch program shares.
//
//	flags + topology --> Config (strict) --> run(ctx, w, cfg) --> exit code
//	                                          |  readings, frames, files in and out
//	                                          └─ state once a second, READY=1, WATCHDOG=1, log
//
// A program is a Program value and a run function. The runtime alone touches
// the command line, signals, exit codes, the log's set-up, readiness and the
// heartbeat. It opens the bus under the worker's name, publishes the worker's
// state each second, and counts what becomes of every message: by its accounts,
// and by the counters refused_malformed, refused_unknown_version and
// refused_duplicate, which are there once there was one.
//
// run returns nil when it is done, ctx's error when it was told to stop, and
// anything else when it failed; what is joined to ctx's error, such as rows that
// could not be written at the end, is a failure too. It must not return before what it started has
// ended. The first SIGINT, SIGTERM or SIGHUP cancels ctx. A second SIGINT or SIGTERM
// ends the process; a second SIGHUP does not, since a terminal that closes sends two.
//
// # Exit codes
//
//	0   done, or stopped when told to
//	1   failed: to be started again, with backoff
//	69  a device is missing (EX_UNAVAILABLE of sysexits.h)
//	75  a temporary failure (EX_TEMPFAIL)
//	78  the configuration is wrong: held until it changes (EX_CONFIG)
//
// # Heartbeat
//
// Each step of the work loop calls Progress (the runtime's inboxes do it
// themselves), which feeds the watchdog. A worker whose loop hangs is
// therefore noticed: its state still comes, but progress_ns in it stands still
// and systemd or the supervisor ends it after WATCHDOG_USEC.
//
// A worker never waits for its supervisor. If the supervisor is stopped and its socket
// full, heartbeats are dropped, and so are log lines when the pipe is full; the state
// counts them as dropped_heartbeats and dropped_log_lines. READY=1 and STATUS are sent
// again later.
package worker
