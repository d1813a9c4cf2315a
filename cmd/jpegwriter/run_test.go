package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

func states(b *boxtest.Box) *boxtest.Feed {
	return b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "pictures")
}

func TestPictureIsOfTheNewestFrameInEachFormat(t *testing.T) {
	t.Parallel()
	for _, format := range pixel.Formats() {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(`every = "50ms"`))
			cache := b.Dir + "/cache"
			c := openCamera(t, b.Bus("porch"), format)
			events := b.Follow(b.Bus("events"), []msg.Kind{msg.KindFile}, "pictures")
			p := b.Start("jpegwriter", "pictures")
			for range 4 {
				before, begun := pictures(t, cache), time.Now()
				c.frames(t, 7)
				most := 2 + int(time.Since(begun)/(50*time.Millisecond)) // one of the last frame, and one for each tick before it
				last := int(c.n.Load()) - 1
				boxtest.Poll(t, "a picture of the newest frame", func() bool { return newest(t, cache) == last })
				if made := pictures(t, cache) - before; made > most {
					t.Errorf("%d pictures of 7 frames; want the newest alone, at most %d", made, most)
				}
			}
			list := gallery(t, cache)
			for i, pic := range list {
				wantOf(t, c, pic)
				wantAsItWas(t, c, pic)
				if i > 0 && pic.number <= list[i-1].number {
					t.Errorf("picture %d is of frame %d, the one before of %d; want a newer one", i, pic.number, list[i-1].number)
				}
				wantBorn(t, events.Next(), pic)
			}
			p.Stop()
			latest, err := os.ReadFile(cache + "/latest.jpg")
			if err != nil {
				t.Fatal(err)
			}
			if last, err := os.ReadFile(list[len(list)-1].path); err != nil || !bytes.Equal(latest, last) {
				t.Errorf("latest.jpg is not the last picture (%v)", err)
			}
			wantNoLitter(t, cache)
		})
	}
}

// wantOf compares what a picture's sidecar says with its pixels.
func wantOf(t *testing.T, c *camera, pic picture) {
	t.Helper()
	s := pic.side
	if uint64(s.Start.Seq) != pic.number || s.Start != s.End || s.Items != 1 || s.Source != "frame/porch/video" || s.Media != "image/jpeg" ||
		s.Worker != "pictures" || s.Node != "box" || s.Device == nil || s.Device.Model != "IMX477" || s.Start.BootID != c.bus.Clock().BootID() {
		t.Errorf("sidecar of frame %d = %+v; want where it is from", pic.number, s)
	}
	if len(s.History) != 1 || s.State() != "born" || s.History[0].Reason != "the picture of every 50ms" {
		t.Errorf("history = %+v; want that it was born", s.History)
	}
}

// wantAsItWas wants an mjpeg camera's picture byte for byte, with one segment more.
func wantAsItWas(t *testing.T, c *camera, pic picture) {
	t.Helper()
	if c.format != pixel.MJPEG {
		return
	}
	made, err := c.draw(pic.number)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(pic.path)
	if err != nil || !bytes.HasPrefix(got, made[:2]) || !bytes.HasSuffix(got, made[2:]) || bytes.Count(got, made[2:]) != 1 {
		t.Errorf("picture %d of %d bytes (%v) is not the camera's %d bytes with Exif between", pic.number, len(got), err, len(made))
	}
}

func wantBorn(t *testing.T, m msg.Message, pic picture) {
	t.Helper()
	f, err := m.File()
	if err != nil {
		t.Fatal(err)
	}
	side, err := sidecar.Decode(f.Sidecar)
	if err != nil {
		t.Fatal(err)
	}
	if f.State != "born" || f.ID != string(pic.side.ID) || side.SHA256 != pic.side.SHA256 {
		t.Errorf("file message = %s, %s; want %s, born", f.ID, f.State, pic.side.ID)
	}
}

// exifTool reads a picture's tags, by a program that is not ours.
func exifTool(t *testing.T, path string) map[string]any {
	t.Helper()
	tool, err := exec.LookPath("exiftool")
	if err != nil {
		t.Skip("exiftool is not installed")
	}
	out, err := exec.Command(tool, "-json", "-all", "-validate", path).Output()
	if err != nil {
		t.Fatalf("exiftool: %v", err)
	}
	var tags []map[string]any
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	if err := d.Decode(&tags); err != nil || len(tags) != 1 {
		t.Fatalf("exiftool says %s (%v)", out, err)
	}
	return tags[0]
}

func TestExif(t *testing.T) {
	t.Parallel()
	for _, format := range []pixel.Format{pixel.YUV420, pixel.MJPEG} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("quality = 95"))
			c := openCamera(t, b.Bus("porch"), format)
			c.frames(t, 1)
			p := b.Start("jpegwriter", "pictures", "--set", "node.height_m=-4.5", "--set", "node.site=weir")
			boxtest.Poll(t, "a picture", func() bool { return pictures(t, b.Dir+"/cache") == 1 })
			p.Stop()
			pic := gallery(t, b.Dir+"/cache")[0]
			height := -4.5
			where := topology.Location{Position: &topology.Position{Latitude: -33.8568, Longitude: 151.2153, HeightM: &height}, Site: "weir"}
			if diff := cmp.Diff(where, pic.side.Location); diff != "" {
				t.Errorf("location (-want +got):\n%s", diff)
			}
			tags := exifTool(t, pic.path)
			at := pic.side.Start.Time
			for tag, want := range map[string]string{
				"DateTimeOriginal":   at.UTC().Format("2006:01:02 15:04:05"),
				"SubSecTimeOriginal": fmt.Sprintf("%09d", at.Nanosecond()),
				"OffsetTimeOriginal": "+00:00",
				"Make":               "Arducam",
				"Model":              "IMX477",
				"HostComputer":       "box",
				"UserComment":        fmt.Sprintf("source=porch stream=video epoch=%s seq=0 synced=%t", pic.side.Start.Epoch, pic.side.Start.Synced),
				"ExifImageWidth":     "320",
				"ExifImageHeight":    "240",
				"GPSPosition":        "33 deg 51' 24.48\" S, 151 deg 12' 55.08\" E",
				"GPSAltitude":        "4.5 m Below Sea Level",
				"GPSMapDatum":        "WGS-84",
				"Validate":           "OK",
			} {
				if got := fmt.Sprint(tags[tag]); got != want {
					t.Errorf("%s = %s; want %s", tag, got, want)
				}
			}
		})
	}
}

// The age at the tick is the newest frame's: no more than what lies between a
// frame's capture and the end of the next one's publishing.
func TestFrameIsYoungAtTheTick(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "110ms"`))
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	feed := states(b)
	stop := c.start(t, 33*time.Millisecond)
	p := b.Start("jpegwriter", "pictures")
	var ages []float64
	var s msg.State
	for range 4 {
		s = feed.State("another age", func(s msg.State) bool {
			age, has := s.Gauges["frame_age_ms"]
			return has && (len(ages) == 0 || age != ages[len(ages)-1])
		})
		ages = append(ages, s.Gauges["frame_age_ms"])
	}
	stop()
	p.Stop()
	if c.oldest < 100*time.Millisecond && s.Counters["ticks_without_frame"] != 0 {
		t.Errorf("state = %+v; want no tick without a frame, since one came each %s at most", s, c.oldest)
	}
	most := float64(c.oldest.Microseconds())/1000 + 20 // from taking the frame to reading the clock
	for _, age := range ages {
		if age < 0 || age > most {
			t.Errorf("frame_age_ms = %g; want 0 to %g", age, most)
		}
	}
}

// Without a camera, and while it is away, the state says so; the camera's next
// run is found, whether the last one was killed or stopped.
func TestSourceThatIsAwayAndComesBack(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "50ms"`))
	cache := b.Dir + "/cache"
	feed := states(b)
	p := b.Start("jpegwriter", "pictures")
	s := feed.State("no camera", func(s msg.State) bool { return s.Trouble != "" && s.Counters["ticks_without_frame"] > 0 })
	if s.Counters["pictures"] != 0 || !s.Ready {
		t.Errorf("state = %+v; want a worker that is ready and has no picture", s)
	}
	epochs := map[msg.Epoch]bool{}
	for range 3 {
		seen := len(epochs)
		camera := b.StartEnv(nil, "scenes", b.Dir)
		boxtest.Poll(t, "pictures of a new run", func() bool {
			for _, pic := range gallery(t, cache) {
				epochs[pic.side.Start.Epoch] = true
			}
			return len(epochs) == seen+1
		})
		camera.Kill()
		feed.State("its absence", func(s msg.State) bool { return s.Trouble != "" })
	}
	for range 2 {
		bus := b.Bus("porch")
		c := openCamera(t, bus, pixel.YUV420)
		before := pictures(t, cache)
		c.frames(t, 2)
		boxtest.Poll(t, "a picture", func() bool { return pictures(t, cache) > before })
		if err := bus.Close(); err != nil {
			t.Fatal(err)
		}
		feed.State("its absence", func(s msg.State) bool { return s.Trouble != "" })
	}
	p.Stop()
	wantNoLitter(t, cache)
}

// A full cache costs pictures, counted, and nothing else: no frame stays held,
// and there are pictures again when there is room.
func TestFullCache(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("every = \"50ms\"\nquality = 100"))
	cache := b.Small("cache", 512<<10)
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	feed := states(b)
	stop := c.start(t, 20*time.Millisecond)
	p := b.Start("jpegwriter", "pictures")
	full := feed.State("lost pictures", func(s msg.State) bool {
		return s.Counters["lost_pictures"] > 10 && strings.Contains(s.Trouble, "picture lost: ") && strings.Contains(s.Trouble, "no space left")
	})
	feed.State("more of them", func(s msg.State) bool { return s.Counters["lost_pictures"] > full.Counters["lost_pictures"]+10 })
	list := gallery(t, cache)
	if len(list) == 0 {
		t.Error("there is no picture from before the cache was full; want some")
	}
	for _, pic := range list {
		if err := errors.Join(os.Remove(pic.path), os.Remove(strings.TrimSuffix(pic.path, ".jpg")+".json")); err != nil {
			t.Fatal(err)
		}
	}
	feed.State("pictures again", func(s msg.State) bool { return s.Counters["pictures"] > full.Counters["pictures"] })
	stop()
	p.Stop()
	gallery(t, cache)
	wantNoLitter(t, cache)
	if n := c.n.Load(); n < 100 {
		t.Errorf("the camera made %d frames; want it never held up", n)
	}
}

// A frame that is no picture is lost, and the next one is made.
// A camera's pictures may lack the Huffman tables, which many programs want.
func TestPictureGetsItsHuffmanTables(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(""))
	c := openCamera(t, b.Bus("porch"), pixel.MJPEG)
	whole, err := c.draw(0)
	if err != nil {
		t.Fatal(err)
	}
	tables := bytes.Index(whole, []byte{0xff, 0xc4})
	rest := whole[tables:]
	for rest[1] == 0xc4 {
		rest = rest[2+int(rest[2])<<8+int(rest[3]):]
	}
	bare := slices.Concat(whole[:tables], rest)
	if _, err := jpeg.Decode(bytes.NewReader(bare)); err == nil {
		t.Fatal("image/jpeg decodes a picture without Huffman tables: this test shows nothing")
	}
	if err := c.put(bare); err != nil {
		t.Fatal(err)
	}
	p := b.Start("jpegwriter", "pictures")
	boxtest.Poll(t, "a picture", func() bool { return pictures(t, b.Dir+"/cache") == 1 })
	p.Stop()
	text, err := os.ReadFile(gallery(t, b.Dir+"/cache")[0].path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jpeg.Decode(bytes.NewReader(text)); err != nil {
		t.Errorf("image/jpeg: %v; want a picture", err)
	}
}

func TestBadFrameIsCounted(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "50ms"`))
	c := openCamera(t, b.Bus("porch"), pixel.MJPEG)
	feed := states(b)
	if err := c.put([]byte("no JPEG at all")); err != nil {
		t.Fatal(err)
	}
	p := b.Start("jpegwriter", "pictures")
	feed.State("the loss", func(s msg.State) bool { return s.Counters["lost_pictures"] == 1 })
	c.frames(t, 1)
	feed.State("the next picture", func(s msg.State) bool { return s.Counters["pictures"] == 1 })
	p.Stop()
	wantNoLitter(t, b.Dir+"/cache")
}

// A reader that holds the whole history of file events costs no announcement:
// each comes when there is room again, and no picture waits for it.
func TestPicturesAreAnnouncedLater(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "1100ms"`)) // longer than the pause between two tries
	cache := b.Dir + "/cache"
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	feed := states(b)
	events := b.Follow(b.Bus("events"), []msg.Kind{msg.KindFile}, "pictures")
	p := b.Start("jpegwriter", "pictures")
	p.Ready()
	stop := boxtest.PinAll(t, b.Dir+"/shm", "pictures.files", worker.FileHistory().Slots)
	c.frames(t, 1)
	boxtest.Poll(t, "a picture", func() bool { return pictures(t, cache) == 1 })
	c.frames(t, 1)
	feed.State("the trouble", func(s msg.State) bool {
		return s.Counters["pictures"] == 2 && strings.Contains(s.Trouble, "2 pictures are there and not announced: publish file/pictures/files: no free slot")
	})
	stop()
	for _, pic := range gallery(t, cache) {
		wantBorn(t, events.Next(), pic)
	}
	if s := feed.State("no trouble", func(s msg.State) bool { return s.Trouble == "" || s.Trouble == "no new frame since the last picture" }); s.Counters["unannounced_files"] != 0 {
		t.Errorf("counters %v; want none given up", s.Counters)
	}
	p.Stop()
}

func TestLatestHasOneWriter(t *testing.T) {
	t.Parallel()
	const second = "[worker.more]\nprogram = \"jpegwriter\"\nsource = \"porch\"\nevery = \"50ms\"\n"
	b := boxtest.New(t, fleet(`every = "50ms"`)+second)
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	c.frames(t, 1)
	first := b.Start("jpegwriter", "pictures")
	boxtest.Poll(t, "a picture", func() bool { return pictures(t, b.Dir+"/cache") == 1 })
	other := b.Start("jpegwriter", "more")
	who := fmt.Sprintf("give each jpegwriter a latest of its own: claim latest.jpg: %s/cache/.latest.jpg.lock is held by process %d (jpegwriter)", b.Dir, first.PID())
	if code := other.Wait(); code != 75 || !strings.Contains(other.Log(), who) {
		t.Errorf("exit code of the second = %d, %s; want 75 and %q", code, other.Log(), who)
	}
	for _, latest := range []string{"more.jpg", ""} {
		b.Write(fleet(`every = "50ms"`) + second + fmt.Sprintf("latest = %q\n", latest))
		other = b.Start("jpegwriter", "more")
		before := pictures(t, b.Dir+"/cache")
		c.frames(t, 1)
		boxtest.Poll(t, "two more pictures", func() bool { return pictures(t, b.Dir+"/cache") == before+2 })
		other.Stop()
	}
	first.Stop()
	names, err := filepath.Glob(b.Dir + "/cache/*.jpg")
	if err != nil || len(names) != 2 {
		t.Errorf("pictures for people = %v, %v; want latest.jpg and more.jpg", names, err)
	}
}

// Ticks that pass while the process cannot run are counted, and it goes on
// with the newest frame.
func TestMissedTicks(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "50ms"`))
	cache := b.Dir + "/cache"
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	feed := states(b)
	stop := c.start(t, 10*time.Millisecond)
	p := b.Start("jpegwriter", "pictures")
	boxtest.Poll(t, "a picture at a tick", func() bool { return pictures(t, cache) > 1 }) // ticks count from the first
	p.Signal(syscall.SIGSTOP)
	until := c.n.Load() + 60
	boxtest.Poll(t, "frames", func() bool { return c.n.Load() >= until })
	before := pictures(t, cache)
	p.Signal(syscall.SIGCONT)
	feed.State("missed ticks", func(s msg.State) bool { return s.Counters["missed_ticks"] >= 5 })
	boxtest.Poll(t, "two pictures after the stop", func() bool { return pictures(t, cache) >= before+2 })
	stop()
	p.Stop()
	if list := gallery(t, cache); list[before+1].number < until-2 {
		t.Errorf("%d pictures, %d before the stop; want the next one of a frame after it", len(list), before)
	}
}

// Killed between any two calls that change the cache, it leaves nothing that
// the next run does not clear away, and no picture without its sidecar.
func TestKilledAtEachCall(t *testing.T) {
	t.Parallel()
	n := 0
	for came := true; came && !t.Failed(); {
		n++
		t.Run(fmt.Sprint(n), func(t *testing.T) { came = killedAt(t, n) })
	}
	if n < 12 {
		t.Errorf("it was done after %d calls; want at least 12, or this test does not see them", n-1)
	}
}

func killedAt(t *testing.T, n int) bool {
	t.Helper()
	b := boxtest.New(t, fleet(`every = "10ms"`))
	faults, backing := b.Faulty("cache")
	c := openCamera(t, b.Bus("porch"), pixel.YUV420)
	c.frames(t, 1)
	events := b.Follow(b.Bus("events"), []msg.Kind{msg.KindFile}, "pictures")
	started := make(chan int, 1)
	faults.Break(n, func() { _ = syscall.Kill(<-started, syscall.SIGKILL) }) // it dies when this call has failed
	p := b.Start("jpegwriter", "pictures")
	started <- p.PID()
	announced := func() bool { return strings.Contains(p.Log(), `"msg":"ready"`) && latest(backing) }
	boxtest.Poll(t, "the picture or the kill", func() bool { return faults.Broken() || announced() })
	came := faults.Broken()
	p.Kill()
	faults.Break(0, nil)
	p = b.Start("jpegwriter", "pictures")
	c.frames(t, 1)
	boxtest.Poll(t, "the next frame's picture", func() bool { return newest(t, backing) == 1 })
	list := gallery(t, backing)
	for last, seen := list[len(list)-1].side.ID, ""; seen != string(last); {
		m := events.Next()
		f, err := m.File()
		if err != nil {
			t.Fatal(err)
		}
		seen = f.ID
	}
	p.Stop()
	gallery(t, backing)
	wantNoLitter(t, backing)
	return came
}

func latest(cache string) bool {
	_, err := os.Stat(cache + "/latest.jpg")
	return err == nil
}
