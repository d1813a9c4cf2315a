// Uploader sends files from the store to a receiver, and keeps its receipt.
//
//	file message, or a look into ready/ --> queue (by class, newest first) --two at a time-->
//	    corrected in time, read through --> https PUT or POST | S3 | tus --> the file, then its sidecar
//	    --> proof --> receipt in the sidecar, sent/ --> file message
//
// A file leaves ready/ when the receiver has proved that it has it, and the
// receipt is on disk. Killed at any moment, the uploader sends the file again
// under the same name and key, so that the receiver keeps it once: PUT and S3
// carry If-None-Match, all carry Idempotency-Key or the id, and a tus upload
// goes on where it was. Each file is followed by its sidecar, <id>.json, which
// replaces what an earlier attempt left there: where it is, the file is whole. A
// file whose bytes are no longer those that were written is not sent, and goes
// to quarantine/. Told to stop, the uploader breaks off at once.
//
// What the receipts prove (receipt = …):
//
//	status   the receiver, known by its certificate, said so
//	head     and, asked again, shows a file of that name and of the same length, or its sha256
//	digest   and names the file's sha256: nothing else can be there
//	content  and gives back the same bytes: costs the way twice
//
// A digest or length that differs is never a receipt, whatever is asked for.
// Redirects are not followed. A sha256 is looked for in Repr-Digest,
// Content-Digest, Digest, x-amz-checksum-sha256, an ETag that is it, and a JSON
// answer's "sha256". A plain web server such as nginx tells none: there head is
// what can be had, and content where that is not enough. POST wants a receiver
// that answers with a sha256, or with the Location of what it made.
//
// A receiver that fails (5xx, 408, 409, 425, 429, or no answer) is left alone
// for a random time that grows up to retry_most, at least for as long as its
// Retry-After says, and then tried with one file. A file that it refuses (other
// 4xx) is tried again, later each time, while others go on; after attempts
// refusals it is moved to rejected/ with the answer in its history. 401, 403,
// 404, 405, 407, 410 and 421 are about the address or our rights and never cost
// a file: they become the state's trouble, and are tried every minute or two.
// An attempt in which nothing moves for stall_after has failed; how long the
// whole takes does not matter.
//
// When this box itself fails, as on a full disk, nothing is sent for a second to
// half a minute: each try may cost a transmission for nothing. While the store is
// not there, nothing is taken from it.
//
// At its start and once a minute it settles what was left half-way in the store by
// whoever was killed there, as the mover does, since a fleet need not have one.
//
// What is in rejected/ is counted in the status. Once the receiver is mended,
// "uploader retry" lets it be sent again.
//
// Connections go by the proxy of HTTPS_PROXY, but for those to NO_PROXY and to this
// machine. Certificates are always verified. Secrets are read for each use from files
// that nobody else may read; they are in no address, log, message or sidecar,
// also where a receiver repeats them. docs/RECEIVERS.md says what a receiver is
// sent, and how to set one up.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "uploader",
		Summary:   "Sends files from the store to a receiver, and keeps its receipt.",
		Reads:     []msg.Kind{msg.KindFile},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
		Verbs:     []worker.Verb[Config]{{Name: "retry", Summary: "Send again what was rejected.", Run: retry}},
	})
}
