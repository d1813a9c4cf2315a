// Package turbojpeg makes JPEG pictures of frames, and frames of JPEG pictures,
// with libjpeg-turbo's TurboJPEG library (turbojpeg.h, version 2.1).
//
//	pixel.Image --Encoder--> JPEG         JPEG (a camera's mjpeg) --Decoder--> yuv420
//
// The encoder reads yuv420 planes where they lie, so that a frame in a ring's
// slot becomes a picture with no copy of ours, and rgb24 likewise. Scratch memory,
// kept from call to call, is needed for nv12 (its chroma, a third of the frame)
// and yuyv (all of it).
//
// Viewers take every JPEG for full-range BT.601 (JFIF 1.02). A frame with another
// pixel.Image.Colour is converted first, into scratch memory of its size: see
// colour.go. That adds a tenth to a third of the encoder's time. Chroma samples
// are not moved: each is the colour of all pixels that share it.
//
// A picture with any defect is refused as corrupted, also where the library would
// only warn and fill the rest with grey, as with a picture cut short. What stands
// behind the end of the picture (some cameras pad) is ignored. A picture over the
// decoder's limit is refused before memory is taken for it.
//
// An Encoder and a Decoder hold memory of the C library until Close; after it
// every call returns ErrClosed. Neither is safe for concurrent use. The package is
// the one place beside pkg/shm with unsafe: C wants pointers (libturbojpeg.go).
package turbojpeg
