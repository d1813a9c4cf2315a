// Package rtspcam receives the video of a network camera by RTSP (RFC 2326) and
// returns it as access units with the times of their capture. Decoding is left to
// others.
//
//	camera --RTP over TCP or UDP--> depacketizer --> access unit + time --> bounded queue --Next--> decoder
//	                                     RTP times, sender reports --> timeline ----^
//
// The library gortsplib implements RTSP, RTP and RTCP. This package chooses the
// video, assembles packets into access units, dates them, and explains errors.
//
// # Which units are delivered
//
// Delivery starts with the first key frame, without which nothing can be decoded,
// and goes on with every unit in the order of its arrival. A unit that is not
// delivered is counted in the Missed of the next one: what came before the first
// key frame, what lost a packet on the way (and, by the RTP times, what was lost
// whole), and what found the queue full. Receiving never waits for the consumer. A
// full queue discards everything up to a key frame.
//
// # When a picture was captured
//
// RTP times (RFC 3550, section 5.1) give the distances between pictures exactly,
// but not when they were: their origin is arbitrary, and a camera's wall clock may
// be years off. The offset of the RTP clock to this machine's is therefore taken
// from the pictures that arrive earliest after their capture: the least difference
// of arrival and RTP time over the last 8 seconds. Temporary delays in the network or
// the sender do not move it. Within this window it also follows a camera whose
// clock runs fast or slow. It is applied gradually, by at most a twentieth of the
// time that passes.
//
// Arrivals cannot show a delay that all pictures have, usually the encoder's. RTCP
// sender reports show it if both clocks are right: a delay of 0 to 0.5 s by the
// camera's clock is believed and subtracted if this machine's clock is
// synchronised. Any other value means that the camera's clock is wrong.
//
// Cameras and relays often begin with pictures of the past, back to the last key
// frame, which they send at once. The offset would be wrong before the last of
// them has come. Next therefore waits at the beginning until pictures come no
// faster than they were captured, or none has come for 0.1 s, at most a second.
//
// RTP times that jump are tolerated: one picture that is off is dated by its
// arrival, two that agree are a new origin. Times that stand still, and a clock
// that is wrong by more than 2 % over half a minute, are useless: pictures are
// dated by arrival, and Config.Warn is called.
//
// # Credentials
//
// User and password go to the host and port of the address only. A redirect to
// another one is an error that names it. In clear (Basic, over rtsp://) they are
// sent only with Config.AllowBasic. The certificate of an rtsps:// camera is
// verified by the system's authorities, or by those in Config.CAFile; a
// certificate that itself stands in this file is accepted whatever name it has,
// since the ones that cameras make for themselves have none.
package rtspcam
