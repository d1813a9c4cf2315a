package simbme280

// FailNext makes the next n transactions fail with EREMOTEIO, in place of any still to fail.
func (c *Chip) FailNext(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failNext = n
}

// SetStuck holds the measuring bit up, which no reset clears, or lets it go again.
func (c *Chip) SetStuck(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuckBit = on
}

// SetAbsent takes the chip off the bus, or puts it back as it was.
func (c *Chip) SetAbsent(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Absent = on
}

// SetTruth replaces the air, from the next end of a conversion on.
func (c *Chip) SetTruth(air Truth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Truth = air
}

// Brownout is a dip of the supply: every register goes back to its power-on value, and nobody is told.
func (c *Chip) Brownout() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerOn(c.opts.Now())
}
