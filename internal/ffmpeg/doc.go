// Package ffmpeg runs ffmpeg, ffprobe and other programs that pass pictures
// through pipes, so that none of them hangs, outlives us, or fails without
// saying why.
//
//	Command --Start--> child in a group of its own <==pipes with deadlines==> Process.Stdin, Process.Stdout
//	                     └─ stderr: its last lines, without secrets, are in the error
//	Input --Probe--> Video: size, rate, number of frames (ffprobe)
//	Timestamped options --FrameReader--> each picture's length and timestamp; its pixels stay in the pipe for the caller
//
// # Rules that every child is started by
//
//   - Its arguments are a list, made of typed values. No shell sees them.
//   - It gets SIGKILL when this process ends, however that ends (PR_SET_PDEATHSIG
//     of prctl(2)). The kernel sends it when the thread that started the child
//     ends, so that a goroutine stays locked to that thread for the child's life.
//   - It has a process group of its own: Ctrl-C in a terminal reaches it through
//     us only, and its own children are ended with it. Those die by no signal
//     when this process is killed; they find their pipe closed, and the cgroup
//     of the supervisor gets the rest.
//   - Ending it is SIGTERM to the group, SIGKILL after Command.Grace. Wait and
//     Stop return when it is reaped and the group is gone.
//   - Pipes are as large as the kernel lets them be, up to 1 MiB, so that a
//     picture takes few wake-ups; see fcntl(2), F_SETPIPE_SZ.
//   - What it writes to its standard error is read all the time. The last lines
//     are kept, bounded, and stand in the *ExitError, without the user and
//     the password of any URL. The child's own argument list has them in full,
//     and ps shows it to every user of the machine: mount /proc with hidepid=2
//     where that matters.
//
// A program that is not there is an error that says which package has it.
package ffmpeg
