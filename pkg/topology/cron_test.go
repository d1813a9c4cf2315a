package topology

import (
	"strings"
	"testing"
	"time"
)

func TestJobSchedules(t *testing.T) {
	for _, c := range []struct{ lines, schedule string }{
		{`every = "10m"`, "every 10m"},
		{`every = "90s"`, "every 1m30s"},
		{`cron = "17 3 * * *"`, "cron 17 3 * * *"},
		{`cron = "*/5 8-18 * jan-jun mon,fri"`, "cron */5 8-18 * jan-jun mon,fri"},
		{`cron = " @daily "`, "cron @daily"},
		{`cron = "0 0 29 2 *"`, "cron 0 0 29 2 *"},
	} {
		top, err := loadJob(t, c.lines)
		if err != nil {
			t.Errorf("Load(%s) = %v; want no problem", c.lines, err)
			continue
		}
		if got := top.Entry("j").Schedule(); got != c.schedule {
			t.Errorf("Schedule() of %s = %q; want %q", c.lines, got, c.schedule)
		}
	}
}

func loadJob(t *testing.T, lines string) (*Topology, error) {
	t.Helper()
	return load(t, "[sensor.s]\nprogram = \"s\"\n[job.j]\nprogram = \"p\"\nsource = \"s\"\n"+lines+"\n")
}

func TestBadJobSchedules(t *testing.T) {
	for _, c := range []struct{ lines, want string }{
		{``, `:3: job.j: no time to run: want every = "10m", or cron = "17 3 * * *"`},
		{"every = \"10m\"\ncron = \"@daily\"", `:7: job.j.cron = "@daily": every stands beside it, and a job has one of the two`},
		{`every = "0s"`, `:6: job.j.every = "0s": want 1s at least`},
		{`every = "often"`, `:6: job.j.every = "often": want a length of time`},
		{"every = \"1m\"\ntimeout = \"5ms\"", `:7: job.j.timeout = "5ms": want 1s at least`},
		{`cron = ""`, `:6: job.j.cron = "": want minute, hour, day of the month, month and day of the week`},
		{`cron = 5`, `:6: job.j.cron = 5: want minute, hour,`},
		{`cron = "3 * * *"`, `expected exactly 5 fields, found 4`},
		{`cron = "0 17 3 * * *"`, `expected exactly 5 fields, found 6`},
		{`cron = "61 3 * * *"`, `end of range (61) above maximum (59): 61`},
		{`cron = "0 0 * * 7"`, `day of the week (0 is Sunday)`},
		{`cron = ", 0 * * *"`, `there is no such day`},
		{`cron = "0 0 30 2 *"`, `there is no such day`},
		{`cron = "@dayly"`, `or @yearly; did you mean "@daily"?`},
		{`cron = "@reboot"`, `or @yearly; known are @hourly, @daily`},
		{`cron = "@every 10m"`, `a length of time goes under another key: every = "10m"`},
		{`cron = "TZ="`, `times are the box's local ones`},
		{`cron = "CRON_TZ=Asia/Tokyo 0 0 * * *"`, `times are the box's local ones`},
	} {
		_, err := loadJob(t, c.lines)
		if len(ProblemsOf(err)) != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load(%s) = %v; want one problem: %s", c.lines, err, c.want)
		}
	}
}

func TestScheduleIsOfJobsOnly(t *testing.T) {
	top, err := load(t, "[sensor.s]\nprogram = \"s\"\n[worker.w]\nprogram = \"p\"\nsource = \"s\"\ncron = \"@daily\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := top.Entry("w").BindOwn(&writerConfig{Flush: "1hz"}); err == nil || !strings.Contains(err.Error(), "worker.w.cron = \"@daily\": unknown key") {
		t.Errorf("BindOwn() of a worker with cron = %v; want an unknown key", err)
	}
}

func parseCron(t *testing.T, text string) (c Cron) {
	t.Helper()
	if err := c.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCronInItsTimeZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		expr string
		at   time.Time
		want string
	}{
		{"17 3 * * *", time.Date(2026, 7, 1, 3, 16, 59, 9, berlin), "2026-07-01T03:17:00+02:00"},
		{"17 3 * * *", time.Date(2026, 7, 1, 3, 17, 0, 0, berlin), "2026-07-02T03:17:00+02:00"},
		{"@hourly", time.Date(2026, 12, 31, 23, 30, 0, 0, berlin), "2027-01-01T00:00:00+01:00"},
		{"30 2 * * *", time.Date(2026, 3, 28, 12, 0, 0, 0, berlin), "2026-03-30T02:30:00+02:00"},               // on the 29th there is no such time
		{"30 2 * * *", time.Date(2026, 10, 25, 0, 0, 0, 0, berlin), "2026-10-25T02:30:00+02:00"},               // on the 25th there are two
		{"30 2 * * *", time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC).In(berlin), "2026-10-25T02:30:00+01:00"}, // the second
		{"0 0 * * 0", time.Date(2026, 7, 1, 0, 0, 0, 0, berlin), "2026-07-05T00:00:00+02:00"},                  // a Sunday
	} {
		if got := parseCron(t, c.expr).Next(c.at).Format(time.RFC3339); got != c.want {
			t.Errorf("%s after %v = %s; want %s", c.expr, c.at, got, c.want)
		}
	}
}

// Whatever stands there, it is refused or has a next time.
func FuzzCron(f *testing.F) {
	for _, seed := range []string{"17 3 * * *", "@daily", "TZ=", "CRON_TZ=x", "*/0 * * * *", "0 0 31 2 *", "1-5/2,7 ? * jan sun"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c Cron
		if c.UnmarshalText([]byte(text)) != nil {
			return
		}
		at := time.Date(2027, 5, 17, 9, 41, 7, 0, time.UTC)
		if next := c.Next(at); !next.After(at) {
			t.Errorf("%q after %v = %v; want a later time", text, at, next)
		}
	})
}
