package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/perch-edge/perch/internal/nearest"
)

// Cron is a schedule by the wall clock: the five fields of crontab(5), or one
// of its words such as @daily. The zero value is none.
type Cron struct {
	text  string
	times cron.Schedule
}

func (c Cron) String() string { return c.text }

// Next is the first moment of the schedule after t, in t's own time zone. An
// hour that the zone leaves out in spring has none, one that it has twice in
// autumn has it twice.
func (c Cron) Next(t time.Time) time.Time { return c.times.Next(t) }

const wantCron = `want minute, hour, day of the month, month and day of the week (0 is Sunday), as "17 3 * * *", or @hourly, @daily, @weekly, @monthly or @yearly`

// UnmarshalText reads a schedule that comes true some day.
func (c *Cron) UnmarshalText(text []byte) error {
	expr := strings.TrimSpace(string(text))
	switch {
	case strings.HasPrefix(expr, "@every"):
		return fmt.Errorf(`a length of time goes under another key: every = "10m"`)
	case strings.HasPrefix(expr, "@"):
		if words := cronWords(); !slices.Contains(words, expr) {
			return fmt.Errorf("%s%s", wantCron, nearest.Hint(expr, words))
		}
	case strings.Contains(expr, "="): // TZ=, on which the parser may panic
		return fmt.Errorf("%s; times are the box's local ones", wantCron)
	}
	times, err := cron.ParseStandard(expr)
	if err != nil {
		return fmt.Errorf("%s: %w", wantCron, err)
	}
	if times.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return fmt.Errorf("%s: there is no such day", wantCron)
	}
	*c = Cron{text: expr, times: times}
	return nil
}

func cronWords() []string {
	return []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
}
