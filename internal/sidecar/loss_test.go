package sidecar

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The text is the format: receivers read it.
func TestLossIsTheDocumentedText(t *testing.T) {
	s := example()
	s.Add(Event{State: "gone", Reason: "deleted: 12MB free, min_free = 100MB", Rule: "true"})
	l := LossOf(s, "ready", Moment{Time: at("2026-03-03T00:00:00Z"), BootNS: 7, BootID: "b", Synced: true, Epoch: 3, Seq: 4})
	const want = `{"time":"2026-03-03T00:00:00.000000000Z","boot_ns":7,"boot_id":"b","synced":true,"epoch":"0000000000000003","seq":4,` +
		`"node":"box","id":"air-csv_20260301T225958Z_0000a1b2c3d4e5f6-000007","class":"readings","media":"text/csv","source":"reading/air/environment",` +
		`"start":{"time":"2026-03-01T00:00:00.500000000Z","boot_ns":5,"boot_id":"b","synced":true,"epoch":"0000000000000001","seq":2},` +
		`"end":{"time":"2026-03-01T23:59:59.000000000Z","boot_ns":9,"boot_id":"b","synced":false,"epoch":"0000000000000001","seq":90},` +
		`"items":89,"bytes":1234,"sha256":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",` +
		`"state":"ready","reason":"deleted: 12MB free, min_free = 100MB","rule":"true"}` + "\n"
	line, err := l.Encode()
	if diff := cmp.Diff(want, string(line)); diff != "" || err != nil {
		t.Errorf("Encode() (-want +got), %v:\n%s", err, diff)
	}
	others := "no JSON " + string(l.ID) + "\n" + strings.ReplaceAll(string(line), "000007", "000008") + `{"id":"x","reason":"` + string(l.ID) + `"}` + "\n"
	got, err := FindLoss(strings.NewReader(others+string(line)+others), l.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&l, got); diff != "" {
		t.Errorf("FindLoss() (-want +got):\n%s", diff)
	}
	if got, err := FindLoss(strings.NewReader(others), l.ID); got != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("FindLoss() where it is not = %v, %v; want fs.ErrNotExist", got, err)
	}
	if got, err := FindLoss(strings.NewReader(strings.Repeat("x", MaxBytes+1)), l.ID); got != nil || err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("FindLoss() in one endless line = %v, %v; want another error", got, err)
	}
}
