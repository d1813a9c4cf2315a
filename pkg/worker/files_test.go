package worker

import (
	"encoding/json"
	"testing"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
)

// A sidecar may tell more than a message has room for.
func TestFittingKeepsTheEnds(t *testing.T) {
	side := &sidecar.Sidecar{ID: "a", Detections: make([]sidecar.Detection, 400), History: make([]sidecar.Event, 100)}
	side.History[99].Reason = "the last one"
	text, err := fitting(side, 4096)
	if err != nil || len(text) > 4096 {
		t.Fatalf("fitting(4096) = %d bytes, %v; want at most 4096", len(text), err)
	}
	var got sidecar.Sidecar
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if n := uint64(len(got.Detections)) + got.OmittedObjects; n != 400 {
		t.Errorf("%d detections and %d omitted; want 400 in all", len(got.Detections), got.OmittedObjects)
	}
	if last := got.History[len(got.History)-1].Reason; last != "the last one" {
		t.Errorf("the last event is %q; want that of the sidecar", last)
	}
	if len(side.Detections) != 400 || len(side.History) != 100 {
		t.Errorf("the sidecar itself has %d detections, %d events now; want 400 and 100", len(side.Detections), len(side.History))
	}
	if _, err := fitting(&sidecar.Sidecar{Name: string(make([]byte, 5000))}, 4096); err == nil {
		t.Error("fitting(4096) of a name of 5000 bytes = nil; want an error")
	}
}

// A file that was found without a sidecar is of this box all the same.
func TestRecoveredFilesAreOfTheBox(t *testing.T) {
	node := topology.Node{Name: "box", ResponsibleParty: "River Lab", Location: topology.Location{Position: &topology.Position{}, Site: "weir"}}
	f := &Files{w: &Worker{top: &topology.Topology{Node: node}}}
	side := f.recovery(false).Describe("air-csv_20260301T225958Z_0000a1b2c3d4e5f6-000007", "x.csv")
	if side.Node != node.Name || side.ResponsibleParty != node.ResponsibleParty || side.Location != node.Location || side.Worker != "air-csv" {
		t.Errorf("Describe() = %+v; want a file of %+v", side, node)
	}
}

// Each sidecar is read once when a spool is opened, and again when its disk has
// been away.
func TestSpoolsAreNewOnce(t *testing.T) {
	f := &Files{read: map[string]*spool.Spool{}}
	dirs := []string{t.TempDir(), t.TempDir()}
	for range 2 { // the second time a disk that came back
		for _, dir := range dirs {
			s, err := spool.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if first, second := f.isNew(s), f.isNew(s); !first || second {
				t.Errorf("isNew() = %v, then %v; want true, then false", first, second)
			}
		}
	}
}
