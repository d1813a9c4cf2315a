// Supervisor runs a fleet: the sensors and workers of one topology, each a
// process of its own.
//
//	topology.toml --check--> readers first, sensors last --> restart what fails --> stop, sensors first
//	                             └─ state of the box: status, supervisor.sock, state/supervisor/box on the bus
//
// A worker is started when all that read it are ready (READY=1, sd_notify(3)),
// or have had their first try: a broken reader does not keep a sensor down. A
// worker that is not ready within 30 s, or whose heartbeat stays out for 10 s,
// gets SIGABRT, so that its log shows where it hung, and after 2 s SIGKILL.
// What ended is started again after 0.2 s, and then twice as long each time up
// to 60 s, for ever; 60 s of health begin the series anew, and so does the end
// of a worker that was well and that somebody else killed. Two ends are
// different: a worker that said STATUS=done and exits with 0 is done and left
// alone; one that exits with 78 is held, and tried again when the topology's
// file changes. "supervisor start NAME" tries at once.
//
// Time in which the supervisor itself did not run (Ctrl-Z, an overloaded machine) counts
// against no worker: they go on meanwhile, and their heartbeats are read first.
//
// # Stopping
//
// Stopping goes the other way round: a worker gets SIGTERM when all its sources
// have ended, and its process group SIGKILL when it shows no sign of life for 10 s.
// A second Ctrl-C or SIGTERM, at least 0.3 s after the first, kills at once. SIGHUP
// stops the fleet like SIGTERM, however often it comes: a terminal that closes sends
// two. It does not stop a fleet that runs in the background ("up -d").
//
// An exit code other than 0 means that a worker could not save all it had read. The
// histories of its sources then stay in shm_dir for its next run, as they do for a
// worker that was killed, or was not running at the stop. "down" reports what is kept,
// for which worker, and how much RAM it takes. It exits with 1 when a worker failed, and
// so does "up" in the foreground. The next "up" lets the worker read the histories;
// "down --discard" removes them. A history holds only the last messages of a stream
// (1024 readings): anything older that a worker had only in RAM is lost, and its next
// run counts it.
//
// # Jobs
//
// A [job.NAME] is run at its times, every so often or by cron, and never twice
// at once: a time that comes while it still runs is skipped. It is no part of
// the order of starting and stopping, nor of what is ready.
//
//	waiting --fleet is up, clock is known--> scheduled --due--> running --done, failed--> scheduled
//
// "every" counts on the boot clock, first 10 s after all workers were started.
// "cron" is by the wall clock once that has been synchronised; it is looked at
// each minute at least, so that a job runs once and not many times when the
// clock is set forward, and not in a year when it is set back. A run that fails
// waits for its next time; one that takes longer than the job's timeout gets
// SIGTERM, and SIGKILL 10 s later. A job need not say that it is ready; once it
// has sent a heartbeat, it is ended when that stays out. Exit code 78 holds it.
// "supervisor start NAME" runs it at once, "stop" holds it.
//
// # Nothing is left behind
//
// Children get SIGKILL when the supervisor ends, however it ends (Pdeathsig,
// prctl(2)). Each has a process group and, where one can be made, a cgroup.
// What still stays after kill -9 of everything is swept by the next "up" or
// "down": processes by cgroup, by the record in run_dir, and by the mark
// PERCH_SUPERVISED in their environment; then rings, sockets and locks, except
// histories that a killed worker may not have saved.
//
// Somebody may remove run_dir or its contents while the fleet runs: a cleaner, or
// logind at the last logout of a user without linger. The supervisor checks once a
// second, as each worker does for its own sockets, and recreates what is missing. If
// that fails for 5 s, it stops the fleet and exits with 1 (with 75 if another supervisor
// has the folder). Until then "up" and "down" find it by the lock file that it holds open.
//
// # Files
//
//	run_dir/supervisor.lock   held by the one supervisor of a run folder
//	run_dir/supervisor.sock   requests and replies, a JSON object a line: {"verb":"status"}
//	run_dir/supervisor.ipc    the box's state on the bus, once a second
//	run_dir/notify.sock       NOTIFY_SOCKET of all children
//	run_dir/fleet.json        what was started, for who has to sweep
//	store_dir/logs/NAME.log   JSON lines of a worker and of the supervisor itself; at 1 MiB
//	                          renamed to NAME.log.1, so that a worker's log takes 2 MiB at most
//
// While store_mount is declared and nothing is mounted there, logs are kept in
// cache_dir/logs, bounded alike, and brought to the disk when it has come. The
// fleet runs meanwhile: "check" warns, "status" says that the store is not mounted.
//
// # Losses
//
// LOST in the table of "status", and lost in its JSON, is what a worker has lost since
// the supervisor's start, whatever was started again meanwhile: messages that never
// reached it, messages that it could not send, and all its counters named lost_*, such
// as lost_rows of csvwriter and lost_frames of h264writer (without lost_*_bytes, which
// count the same again). A frame that h264writer was too slow to read counts twice: as
// a message, and in lost_frames.
//
// # Exit codes
//
// 0 when all is well, 1 when the command ran and something of the fleet is not
// as it should be, 69 when no supervisor runs, 75 when another one does, 78
// when the topology or the command line is wrong.
package main

import "github.com/perch-edge/perch/pkg/worker"

func main() {
	worker.Tool{Name: ownName, Summary: "Runs the sensors and workers of a topology.", Verbs: &commandLine{}}.Main()
}
