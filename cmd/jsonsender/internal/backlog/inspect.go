package backlog

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

// Status is what a log holds and what it has lost.
type Status struct {
	Records uint64    `json:"records"`         // that are not acknowledged
	Bytes   int64     `json:"bytes"`           // of all files
	Oldest  time.Time `json:"oldest,omitzero"` // of the records' times; zero where none waits
	Lost    uint64    `json:"lost"`            // for any reason, since the log was made
	Losses  []Loss    `json:"losses"`
	Rewound uint64    `json:"rewound"` // how often all was sent again since both slots of the state were damaged
}

// Status is what the log holds and has lost.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status()
}

func (l *Log) status() Status {
	return Status{
		Records: l.waiting, Bytes: l.size(), Oldest: l.oldest(),
		Lost: lost(l.state.Losses), Losses: slices.Clone(l.state.Losses), Rewound: l.state.Rewound,
	}
}

// looks is how often Inspect tries to see a folder that does not change meanwhile.
const looks = 5

// Inspect reads the status of a log that another process may have open. It changes
// nothing. Of a log in use the losses are those that its process has written, and the
// records are about as many as that. It fails with fs.ErrNotExist where there is none.
func Inspect(root *os.Root, dir string) (Status, error) {
	d, err := openFolder(root, dir, false)
	if err != nil {
		return Status{}, err
	}
	defer d.root.Close()
	var st Status
	for range looks {
		var same bool
		if st, same, err = look(d); err == nil && same {
			break
		}
	}
	if err != nil {
		return Status{}, fmt.Errorf("inspect backlog %s: %w", dir, err)
	}
	return st, nil
}

// look reads a folder once; same says that no file came or went meanwhile.
func look(d *folder) (st Status, same bool, err error) {
	before, err := d.names(segmentExt)
	if err != nil {
		return Status{}, false, err
	}
	l := newLog(d, Config{})
	f, _, _, _, err := l.recover()
	if err != nil {
		return Status{}, false, err
	}
	st = l.status()
	if lockfile.Held(d.root, lockName) { // blocks that are being written look damaged
		st.Losses, st.Lost, st.Rewound = f.stored.Losses, lost(f.stored.Losses), f.stored.Rewound
	}
	l.closeIn()
	after, err := d.names(segmentExt)
	return st, maps.Equal(before, after), err
}
