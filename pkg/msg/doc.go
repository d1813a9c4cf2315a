// Package msg is the bus: typed messages over ZeroMQ PUB/SUB between the
// processes of one box, nothing lost while their publisher lives, and everything
// that is lost counted.
//
//	Publisher: stamp, number --> history ring --> XPUB ~~ipc~~> SUB --> gaps repaired from the ring --> Subscriber.Next
//	FrameStream: pixels --> slot of a ring --> descriptor ~~ipc~~> doorbell --> Frames.Next, Newest: the slot, in place
//
// Push is no part of the bus: it sends messages to a program outside the box, by TCP and CURVE.
//
// Bus.Close waits half a second at most for messages to leave. What a peer
// sends wrong is refused with ErrMalformed or ErrVersion and counted; what a
// program does wrong is refused when it publishes. Nothing panics on what comes
// from outside, and nothing waits without a bound.
//
// What follows is the protocol's specification, version 1. docs/PROTOCOL.md says
// the same at length, with examples, for those who write a client in another
// language; testdata/vectors has the cases that any client must decide alike.
//
// # Parts
//
// A message has two or three parts:
//
//	topic    <kind>/<source>/<stream>, 128 bytes at most
//	header   one JSON object (RFC 8259, UTF-8), 65536 bytes at most
//	payload  bytes, 1048576 at most; no kind has one yet
//
// A header has 64 keys at most, each of a-z, 0-9 and _, and each once. Objects
// within have no key twice either. Keys that a reader does not know it ignores.
// A whole number is written without fraction and exponent. The keys of every
// header, in any order, none null:
//
//	v        1
//	kind     reading, frame, detection, file or state; as in the topic
//	node     the box: 1 to 64 bytes, no control characters
//	source   the publisher's name: 1 to 32 of a-z 0-9 -, no - first; as in the topic
//	stream   1 to 32 of a-z 0-9 - _, a letter or digit first; as in the topic
//	epoch    the publisher's run: 16 digits of 0-9 a-f, not all 0
//	boot_id  of the machine, 1 to 64 of a-z A-Z 0-9 - (random(4), boot_id)
//	seq      0 to 2^53-1: numbers the stream's messages within the epoch, no gaps
//	time     of what the message is about, UTC: 2006-01-02T15:04:05.000000000Z, always 30 bytes
//	boot_ns  the same moment, ns of CLOCK_BOOTTIME: 0 to 2^63-1
//	synced   true or false: whether the wall clock was disciplined then
//
// # Bodies
//
// Each kind adds keys to the header. Those in brackets may be absent or null,
// the others are always there.
//
//	reading    columns     1 to 256 distinct names as a stream's, the unit last (temperature_c)
//	           values      as many numbers; null where there is none
//	           [bad]       object: column -> why its value is null or doubtful, not empty
//	frame      ring        <source>.<stream>
//	           slot        0 to 2^20-1
//	           generation  0 to 2^32-1
//	           size        bytes of the frame, 0 to 2^30
//	           format      yuv420, nv12, yuyv, rgb24 or mjpeg (package pixel)
//	           width       pixels, 16 to 16384; even for yuv420, nv12 and yuyv
//	           height      pixels, 16 to 16384; even for yuv420 and nv12
//	           planes      list of {offset, stride, rows}: bytes from the frame's start, bytes
//	                       from row to row, rows; yuv420 has 3, nv12 2, yuyv and rgb24 1, mjpeg 0
//	           hz          the rate meant, 0 (not known) to 1000000
//	           [colour_range]   limited or full; without it limited, of mjpeg full
//	           [colour_matrix]  bt601, bt709 or bt2020; without it bt601
//	detection  frame_source, frame_epoch, frame_seq, frame_time, frame_boot_ns: of the frame, as in its header
//	           covered_until  ns of CLOCK_BOOTTIME: nothing about a frame before it is still to come
//	           objects     list, empty when nothing was seen, of {label, score, box}: 1 to 64 bytes,
//	                       0 to 1, [x0, y0, x1, y1] in pixels with x0 <= x1 and y0 <= y1
//	           gate        may be absent, 64 bytes at most: why the model did not look ("still": nothing
//	                       had moved); objects is then what it saw when it looked last
//	file       id          1 to 128 of a-z A-Z 0-9 . _ - + , = @, no . first; never a path
//	           state       born, dropped, ready, sent, rejected, quarantine or gone
//	           sidecar     object: what the file's sidecar says; or null
//	state      program     the program's name
//	           pid         process id
//	           ready       true or false
//	           status      one line for people
//	           progress_ns ns of CLOCK_BOOTTIME when its work last made a step
//	           counters    object: name -> 0 to 2^64-1; they only grow
//	           [trouble]   what is wrong at the moment
//	           [gauges]    object: name, the unit last -> number
//	           [sources]   list of accounts {topic, epoch, sent, received, repaired, lost, skipped}
//	           [published] object: topic -> messages; [dropped] the same, for want of a slot
//	           [subscribers]  names of those who read it, as far as they said
//	           [box]       object, of state/supervisor/box: the supervisor's word on the whole box
//
// # Endpoints
//
// A source's messages are at ipc://<run_dir>/<source>.ipc, and each of its streams of
// frames at ipc://<run_dir>/<source>.<stream>.ipc; a path is absolute, clean and has 107
// bytes at most (unix(7)). The publisher binds an XPUB socket there, subscribers
// connect SUB sockets, as soon as they like. Before it binds it locks byte 0 of
// the file of that name with .lock behind it (F_OFD_SETLK, fcntl(2)), in which it
// writes its process id: ZeroMQ would let a second process take a live endpoint
// over. run_dir is the publisher's own and nobody else may write in it.
//
// SNDHWM is 1000 on an endpoint of messages, and 1 on one of frames. A message
// for a subscriber whose queue is full is dropped, for that subscriber.
//
// # Subscribing
//
// Subscriptions are prefixes of topics: a reader checks what comes, since
// reading/air/a lets reading/air/ab through. A subscriber that wants to be known
// subscribes to hello/<its name> last; nothing is ever published there. A sensor
// waits before its first message until all names that its topology gives have
// said hello, or 2 s (start_gate).
//
// # Epochs and numbers
//
// An epoch is 50 bits of CLOCK_BOOTTIME in µs at the publisher's start, and 14
// random bits: later runs within one boot are greater. seq begins at 0 in each
// epoch and each stream. A message of a run that the reader has read to its end, or
// of a number that it has had, is a duplicate.
//
// One wrong message must not end a stream for its readers, so an epoch and a number
// must be possible. While a process holds the lock of the stream's ring, the run in
// <ring>.cur is the live one: a greater epoch, and one that has no ring, is
// malformed. Without a live ring an epoch of this boot (boot_id) that is later than
// CLOCK_BOOTTIME is malformed, and so is a number greater than the microseconds
// since the epoch; a message more than 100 numbers ahead waits until the next one of
// the stream confirms it; and when messages of the epoch before go on, that one is
// the present epoch again.
//
// # History and repair
//
// The last messages of each stream of readings, detections and file events are in
// a ring <source>.<stream> of package shm (1024 slots of 2048 bytes unless the
// publisher says otherwise): the slot's bytes are the header part, the record's
// first own number is its length, its sequence number is seq. A message is in the
// ring before it is sent. States and descriptors have no history. A publisher
// without history is allowed: then what is missed is lost.
//
// A subscriber that wants all messages of a stream
//
//   - takes what comes in order; where seq jumps, the numbers between come from the
//     ring of that epoch first, and what is not there is lost;
//   - reads the ring from the oldest message on when it first meets the stream, or
//     from behind the last one it holds of an earlier run of its own;
//   - looks at the ring twice a second, when its socket is empty: what was
//     published at the look before and has not come is taken from there;
//   - takes all that is left of a ring whose writer closed it or died;
//   - on a greater epoch reads the old ring to its end, then those of the epochs
//     between, which killed publishers left (two at most, for 5 minutes), and
//     then the new one from 0.
//
// A publisher that ends removes its rings, unless its topology names subscribers
// that must have every message: one may be away, or fail to save what it has read.
// Then a later run removes them, or the supervisor when all have ended well.
//
// # Frames
//
// A descriptor is a doorbell. With a high-water mark of 1 ZeroMQ keeps the oldest
// and may drop the one that matters, so the ring decides: who wants the newest
// frame empties its socket and pins the ring's latest; who wants every frame walks
// the ring by number up to the latest and counts what it missed. Either looks at
// the ring itself when 1.5 intervals have passed in silence. Pixels are read under
// a pin and not otherwise.
//
// # Accounts
//
// For each stream and epoch a subscriber counts, and always
//
//	received + repaired + lost + skipped = sent
//
// where sent is its next sequence number, skipped is what was over before it came
// or, for frames, what a newer one replaced. A message that was refused, in its
// header or in its body, is counted by its class, and is lost in the account once
// its number is passed, unless the history had a good copy.
//
// # Versions
//
// In every version the second part is a JSON object with a whole number v. A reader
// looks at it first; any other than its own is skipped and counted, whatever the
// rest of the message is. New keys and new kinds do not make a new version; a new
// meaning of an old key does.
//
// # What a ring says of itself
//
// The meta of a ring (package shm) is a JSON object of kind, topic, node and boot_id,
// and for frames format, width, height, planes and hz: so a ring can be read
// without a message. They are as in a header; kind and topic agree with each other
// and with the ring's name.
package msg
