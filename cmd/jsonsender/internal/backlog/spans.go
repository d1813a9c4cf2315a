package backlog

import "slices"

// span is a range of positions, both ends included.
type span struct {
	First, Last Position
}

// spans are ranges in ascending order that do not touch.
type spans []span

// maxSpans bounds what the state must hold.
const maxSpans = 600

func (s spans) sound(floor Position) bool {
	for _, one := range s {
		if one.First <= floor || one.Last < one.First || one.Last >= maxPosition {
			return false
		}
		floor = one.Last
	}
	return true
}

// at is the index of the first range that ends at p or behind it.
func (s spans) at(p Position) int {
	i, _ := slices.BinarySearchFunc(s, p, func(one span, p Position) int {
		if one.Last < p {
			return -1
		}
		return 1
	})
	return i
}

func (s spans) has(p Position) bool {
	i := s.at(p)
	return i < len(s) && s[i].First <= p
}

// overlaps reports whether any position from first to last is in a range.
func (s spans) overlaps(first, last Position) bool {
	i := s.at(first)
	return i < len(s) && s[i].First <= last
}

// add adds a range and joins those that it touches.
func (s spans) add(first, last Position) spans {
	i := s.at(max(first, 1) - 1)
	j := i
	for j < len(s) && s[j].First <= last+1 {
		first, last = min(first, s[j].First), max(last, s[j].Last)
		j++
	}
	return slices.Replace(s, i, j, span{first, last})
}

// without is how many of the positions from first to last are in no range.
func (s spans) without(first, last Position) uint64 {
	if last < first {
		return 0
	}
	n := uint64(last - first + 1)
	for i := s.at(first); i < len(s) && s[i].First <= last; i++ {
		n -= uint64(min(last, s[i].Last)-max(first, s[i].First)) + 1
	}
	return n
}

// above drops what is not above floor. Where a range follows the floor directly, the
// floor is its end.
func (s spans) above(floor Position) (spans, Position) {
	for len(s) > 0 && s[0].First <= floor+1 {
		floor = max(floor, s[0].Last)
		s = s[1:]
	}
	return s, floor
}
