// Package faultfs makes folders that fail, so that tests see what a full or a
// dying disk does.
//
//	program --> mount point --(FUSE: noted down, failed on demand)--> backing folder
//	program --> mount point --(tmpfs of a few pages)--> ENOSPC
//
// Mount shows a backing folder at another path, keeps a list of the calls that
// decide what outlives a power cut, and fails any of them when asked to. After a
// sync that failed the next one succeeds, and what was written before is lost all
// the same (fsync(2), "EIO").
//
// MakeDisk and MountDisk make a disk of a file. Copied while all who write to it
// are frozen, that is what a power cut leaves.
//
// It fails with ErrUnavailable where the machine does not let us mount: that
// takes root, and /dev/fuse for Mount.
package faultfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this process may not mount.
var ErrUnavailable = errors.New("cannot mount here")

// Tmpfs mounts a tmpfs of that many bytes. Unmount takes it away.
func Tmpfs(at string, bytes int64) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: a tmpfs needs root", ErrUnavailable)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		return fmt.Errorf("%w: tmpfs at %s: %w", ErrUnavailable, at, err)
	}
	return nil
}

// Unmount takes away what Tmpfs or Mount put there, even while files are open.
func Unmount(at string) error {
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", at, err)
	}
	return nil
}

// FS is a mounted folder. Its methods are safe for concurrent use.
type FS struct {
	backing string

	watch sync.Mutex
	seen  func(call string)

	mu     sync.Mutex
	calls  []string
	fail   int
	skip   int // syncs that go well before
	suffix string
	keep   bool
	lost   bool // a sync has failed
	left   int  // calls until one breaks
	do     func()
	errno  syscall.Errno // that calls break with
	once   bool          // the others go well
	broken bool
	synced map[string]int64 // by path: bytes that a sync has made safe
}

// Mount shows backing at another folder.
func Mount(backing, at string) (*FS, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: FUSE needs root and /dev/fuse", ErrUnavailable)
	}
	f := &FS{backing: backing, synced: map[string]int64{}}
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", backing, err)
	}
	root := &fs.LoopbackRoot{Path: backing, Dev: st.Dev}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: root}, fs: f}
	root.RootNode = top
	if _, err := fs.Mount(at, top, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "faultfs", FsName: "faultfs",
			DisabledCapabilities: fuse.CAP_PASSTHROUGH}, // which would hide the writes
	}); err != nil {
		return nil, fmt.Errorf("%w: FUSE at %s: %w", ErrUnavailable, at, err)
	}
	return f, closeOnExec()
}

// closeOnExec keeps the mounts' ends from programs that are started later: go-fuse
// opens them without O_CLOEXEC. A program that had one could wait for a disk that
// nobody serves any more, for ever, since the mount lasts as long as its end is open.
func closeOnExec() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && target == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// FailSyncs makes the next n syncs of files with that end of their names fail
// with EIO; "" is any file. What was written since the last good sync is lost
// to zeros at once, as a power cut would show it, or with keep stays to be read, as
// long as there is none.
func (f *FS) FailSyncs(n int, suffix string, keep bool) { f.failSyncs(0, n, suffix, keep) }

// FailSync does the same to the n-th sync of a file from now on, alone.
func (f *FS) FailSync(n int, keep bool) { f.failSyncs(n-1, 1, "", keep) }

func (f *FS) failSyncs(skip, n int, suffix string, keep bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skip, f.fail, f.suffix, f.keep, f.lost = skip, n, suffix, keep, false
}

// Failing is how many syncs are still to fail.
func (f *FS) Failing() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail
}

// Break runs do in place of the n-th call from now on, counted from 1, and
// fails that call and all after it with EIO, until Break(0, nil). do may kill
// the program that makes the call: then it has come as far as that.
func (f *FS) Break(n int, do func()) { f.arm(n, do, syscall.EIO, false) }

// Fail fails the n-th call from now on with an error, once or until Fail(0, 0, false).
func (f *FS) Fail(n int, errno syscall.Errno, once bool) { f.arm(n, nil, errno, once) }

// Watch runs do before each call, with what Calls will say of it, one at a time;
// nil ends that. do may make that very call fail.
func (f *FS) Watch(do func(call string)) {
	f.watch.Lock()
	defer f.watch.Unlock()
	f.seen = do
}

func (f *FS) show(call string) {
	f.watch.Lock()
	defer f.watch.Unlock()
	if f.seen != nil {
		f.seen(call)
	}
}

func (f *FS) arm(n int, do func(), errno syscall.Errno, once bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.do, f.errno, f.once, f.broken, f.lost = n, do, errno, once, false, false
}

// Broken says whether it has come to that call, or sync.
func (f *FS) Broken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken || f.lost
}

// Calls lists what was done since the last call of Calls, with paths below the
// folder: "create work/a", "open work/a" (to be written to), "write work/a",
// "truncate work/a", "sync work/a", "sync failed work/a", "rename work/a ready/a",
// "unlink work/a", "allocate work/a", "mkdir work", and for a folder's own sync
// "sync work".
func (f *FS) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// try carries a call out, unless it is to break, and notes it down.
func (f *FS) try(call string, work func() syscall.Errno) syscall.Errno {
	f.show(call)
	errno, do := f.counts()
	if do != nil {
		do()
	}
	if errno == 0 {
		errno = work()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if verb, path, _ := strings.Cut(call, " "); errno != 0 {
		call = verb + " failed " + path
	}
	f.calls = append(f.calls, call)
	return errno
}

// counts counts a call down, and says how it is to fail, and what to do first.
func (f *FS) counts() (errno syscall.Errno, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken && !f.once {
		return f.errno, nil
	}
	if f.left == 0 {
		return 0, nil
	}
	if f.left--; f.left > 0 {
		return 0, nil
	}
	f.broken = true
	return f.errno, f.do
}

// moved keeps what is known of a file whose name changes, or forgets it.
func (f *FS) moved(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to != "" {
		f.synced[to] = f.synced[from]
	}
	delete(f.synced, from)
}

// sync makes a file's bytes safe, or loses those that are not.
func (f *FS) sync(path string) syscall.Errno { return fs.ToErrno(f.syncOrFail(path)) }

func (f *FS) syncOrFail(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(filepath.Join(f.backing, path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	safe := min(f.synced[path], st.Size())
	if f.failsNow(path) {
		if f.keep {
			return syscall.EIO
		}
		if _, err := file.WriteAt(slices.Repeat([]byte{0}, int(st.Size()-safe)), safe); err != nil {
			return err
		}
		return syscall.EIO
	}
	f.synced[path] = st.Size()
	return nil
}

// failsNow counts a sync down, and says whether it is to fail.
func (f *FS) failsNow(path string) bool {
	if f.fail == 0 || !strings.HasSuffix(path, f.suffix) {
		return false
	}
	if f.skip > 0 {
		f.skip--
		return false
	}
	f.fail--
	f.lost = true
	return true
}

// node is a file or folder.
type node struct {
	fs.LoopbackNode
	fs *FS
}

// WrapChild makes what is found below a node of this kind too.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, fs: n.fs}
}

var (
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeCreater        = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeRenamer        = (*node)(nil)
	_ fs.NodeUnlinker       = (*node)(nil)
	_ fs.NodeFsyncer        = (*node)(nil)
	_ fs.NodeWriter         = (*node)(nil)
	_ fs.NodeAllocater      = (*node)(nil)
	_ fs.NodeMkdirer        = (*node)(nil)
	_ fs.NodeSetattrer      = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
)

func (n *node) at(name string) string { return filepath.Join(".", n.Path(n.Root()), name) }

// Create makes a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (inode *fs.Inode, file fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	errno = n.fs.try("create "+n.at(name), func() syscall.Errno {
		n.fs.moved(n.at(name), "")
		inode, file, fuseFlags, errno = n.LoopbackNode.Create(ctx, name, flags, mode, out)
		return errno
	})
	return inode, file, fuseFlags, errno
}

// Open opens a file. To open one for writing is a call that can fail.
func (n *node) Open(ctx context.Context, flags uint32) (file fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	open := func() syscall.Errno {
		file, fuseFlags, errno = n.LoopbackNode.Open(ctx, flags)
		return errno
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		errno = open()
	} else {
		errno = n.fs.try("open "+n.at(""), open)
	}
	return file, fuseFlags, errno
}

// Write writes to a file.
func (n *node) Write(ctx context.Context, file fs.FileHandle, data []byte, at int64) (written uint32, errno syscall.Errno) {
	errno = n.fs.try("write "+n.at(""), func() syscall.Errno {
		written, errno = file.(fs.FileWriter).Write(ctx, data, at)
		return errno
	})
	return written, errno
}

// Allocate sets room aside for a file.
func (n *node) Allocate(ctx context.Context, file fs.FileHandle, at, size uint64, mode uint32) syscall.Errno {
	return n.fs.try("allocate "+n.at(""), func() syscall.Errno {
		return file.(fs.FileAllocater).Allocate(ctx, at, size, mode)
	})
}

// Mkdir makes a folder.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (inode *fs.Inode, errno syscall.Errno) {
	errno = n.fs.try("mkdir "+n.at(name), func() syscall.Errno {
		inode, errno = n.LoopbackNode.Mkdir(ctx, name, mode, out)
		return errno
	})
	return inode, errno
}

// Setattr changes a file's length, or what is not worth a note.
func (n *node) Setattr(ctx context.Context, file fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, length := in.GetSize(); !length {
		return n.LoopbackNode.Setattr(ctx, file, in, out)
	}
	return n.fs.try("truncate "+n.at(""), func() syscall.Errno { return n.LoopbackNode.Setattr(ctx, file, in, out) })
}

// Rename gives a file a new name.
func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to := filepath.Join(parent.EmbeddedInode().Path(n.Root()), newName)
	return n.fs.try("rename "+n.at(name)+" "+to, func() syscall.Errno {
		errno := n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
		if errno == 0 {
			n.fs.moved(n.at(name), to)
		}
		return errno
	})
}

// Unlink removes a name.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.fs.try("unlink "+n.at(name), func() syscall.Errno {
		n.fs.moved(n.at(name), "")
		return n.LoopbackNode.Unlink(ctx, name)
	})
}

// Fsync makes a file durable, or loses what is to be lost.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.fs.try("sync "+n.at(""), func() syscall.Errno { return n.fs.sync(n.at("")) })
}

// OpendirHandle opens a folder whose syncs are noted down.
func (n *node) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	entries, errno := fs.NewLoopbackDirStream(filepath.Join(n.fs.backing, n.at("")))
	if errno != 0 {
		return nil, 0, errno
	}
	return &folder{entries.(entryStream), n}, 0, 0
}

type entryStream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

type folder struct {
	entryStream
	node *node
}

// Fsyncdir makes a folder's names durable.
func (f *folder) Fsyncdir(context.Context, uint32) syscall.Errno {
	return f.node.fs.try("sync "+f.node.at(""), func() syscall.Errno { return 0 })
}
