package spool

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestVerify(t *testing.T) {
	s := openStates(t, Ready)
	side := put(t, s, Ready, sideOf(1).ID, "pixels")
	if err := s.Verify(Ready, side, func() {}); err != nil {
		t.Errorf("Verify() = %v; want nil", err)
	}
	if err := s.Verify(Sent, side, func() {}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Verify() where it is not = %v; want that it is not there", err)
	}
	if err := os.WriteFile(s.Path(Ready, side.Name), []byte("pixelz"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(Ready, side, func() {}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify() of other bytes = %v; want damaged", err)
	}
	if err := errors.Join(os.Remove(s.Path(Ready, side.Name)), os.Symlink("/etc/passwd", s.Path(Ready, side.Name))); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(Ready, side, func() {}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("Verify() of a link = %v; want it refused", err)
	}
}
