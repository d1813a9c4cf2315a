package spool

import (
	"fmt"
	"os"
	"path"

	"github.com/perch-edge/perch/internal/sidecar"
)

// Verify reads a file of a state and compares it with what its sidecar tells.
// It fails with ErrDamaged where they differ. alive is called now and then.
func (s *Spool) Verify(state State, side *sidecar.Sidecar, alive func()) error {
	f, err := s.openRegular(path.Join(string(state), side.Name), os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer f.Close()
	if err := verify(f, side, alive); err != nil {
		return fmt.Errorf("verify %s: %w", side.Name, err)
	}
	return nil
}
