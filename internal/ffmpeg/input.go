package ffmpeg

// Input is what ffmpeg or ffprobe reads.
type Input struct {
	args  []string // options, then -i and the address
	shown string
	file  bool
}

// String names the input for people.
func (i Input) String() string { return i.shown }

// With puts options before those that the input has.
func (i Input) With(options ...string) Input {
	i.args = append(options, i.args...)
	return i
}

// File is a file's contents, whatever its name looks like: only the protocol
// "file" may be used, so that a playlist cannot lead elsewhere.
func File(path string) Input {
	return Input{args: []string{"-protocol_whitelist", "file", "-i", "file:" + path}, shown: "file:" + path, file: true}
}

// Units are access units in IVF on the child's standard input (Command.Stdin):
// see IVF. They are decoded as they come: one thread, as several would each hold
// a picture back, and no look at the stream beforehand. "-fflags nobuffer" would
// discard the first unit, which is looked at in any case.
func Units(fourCC string) Input {
	args := []string{"-threads", "1", "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0", "-fpsprobesize", "0", "-copyts"}
	if fourCC == "HEVC" { // which ffmpeg 5.1 does not know by this name
		args = append(args, "-c:v", "hevc")
	}
	return Input{args: append(args, "-f", "ivf", "-i", "pipe:0"), shown: "standard input"}
}
