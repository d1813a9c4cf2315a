// Package shm is the frame ring: large messages in shared memory, written once
// and read in place by other processes.
//
//	writer:  Claim -> fill the slot -> Publish ---latest---> reader: Latest or At -> look -> Release
//
// # Promises
//
// One write into a slot and no copy out of it. What a reader holds is never
// torn and never changes. A slow, stopped or killed reader never blocks the
// writer and never leaks a slot; a killed writer leaves nothing that its
// restart does not clean up. A full tmpfs is a *FullError with numbers at
// creation, never a SIGBUS later. No system call and no allocation a frame.
//
// # Who owns which bytes, and until when
//
// A slot belongs to the writer from Claim to Publish or Abandon: nobody else
// reads it. From Publish on it belongs to whoever pins it; a pinned slot is
// never claimed. A reader owns a pin from Latest or At until Lease.Release, or
// until its process ends: then the kernel drops the reader's lock, which the
// writer notices when it looks for a free slot and once a second. Bytes of a
// slot that is not pinned must not be looked at: there is no validate-after-read
// here, since that is unsound with plain loads on arm64.
//
// # Files
//
// In one folder, mode 0700, all files 0600, little-endian, sizes multiples of
// 64 KiB (whole pages also where a page has 16 KiB):
//
//	<ring>.<epoch>.ctl   header, reader table, slot records; readers map it read-write, for their pins only
//	<ring>.<epoch>.dat   the slots; readers map it read-only
//	<ring>.cur           the current epoch, 16 hexadecimal digits and a newline, replaced by rename
//	<ring>.lock          held (F_OFD_SETLK, byte 0) by the one writer
//
// A new writer, or another geometry, is a new epoch and so new files; old ones
// are unlinked, and who has them mapped goes on reading what it holds.
//
// # The control file
//
//	offset  type     meaning
//	0       u8[8]    magic "perchrng"
//	8       u32      version, 1
//	12      u32      offset of the slot records, 4096
//	16      u64      epoch
//	24      u32      slots
//	28      u32      readers, 31
//	32      u64      bytes a slot can hold
//	40      u64      stride: slot i starts at i*stride in .dat
//	48      i64      CLOCK_BOOTTIME ns of creation
//	56      u32      process id of the writer
//	64      u64      latest = generation<<32 | slot; 0 before the first message
//	128     u64      published: how many messages so far; the next sequence number
//	136     u64      dropped: how often Claim found no slot
//	144     i64      CLOCK_BOOTTIME ns of the last message
//	152     u32      1 when the writer closed the ring: nothing follows
//	192     u32      length of meta
//	196     u8[]     meta: one JSON object that says what the slots hold
//	2048    64*31    reader records, for people, never for decisions:
//	                 u32 process id, u32 pins it may hold, i64 boot ns of its start,
//	                 u64 sequence number it pinned last, u8[40] name
//	4096    64*slots slot records:
//	                 u64 word = generation<<32 | WRITING<<31 | one bit a reader
//	                 u64 sequence number (all ones: none)
//	                 i64 captured, CLOCK_BOOTTIME ns
//	                 i64 captured, Unix time ns
//	                 u32 bytes used
//	                 u32 flags: bit 0, the wall clock was synced
//	                 u64 two numbers of the user's own (messages: length of the header)
//
// # Operations
//
// claim: from the oldest slot on, skip the latest one and those with a reader's
// bit; compare-and-swap the word to (generation+1)|WRITING.
// publish: write the record, store the word with the generation alone, store
// published, store latest.
// pin: load the word; the generation must be the expected one and WRITING
// clear, otherwise it is a miss; compare-and-swap the own bit in.
// unpin: and the own bit out.
// by number: find the record with that sequence number, pin it with the
// generation that its word has, and look at the number again: between the two
// the slot may have got another message.
//
// A reader's number r (0 to 30) is the first whose lock, byte 1+r of .ctl, it
// can take; it clears bits that a dead predecessor left under that number. A
// reader declares how many pins it may hold at once; it is refused
// (*AdmissionError) when all readers' pins plus 2 exceed the slots, so that one
// slot to fill and the latest one always exist. Byte 32 serialises
// registration. Byte 0 is held by the writer. To reclaim the pins of a dead
// reader the writer takes the reader's lock itself before it clears the bits:
// asking and then clearing would race with a newcomer.
package shm
