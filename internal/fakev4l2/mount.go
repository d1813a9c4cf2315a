package fakev4l2

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// byIDFolder and byIDName are where the identity of the camera stands below
// the mount point, as udev names it below /dev/v4l.
const (
	byIDFolder = "by-id"
	byIDName   = "usb-perch_fake-index0"
	firstName  = "video0"
)

// A bay is the mounted folder: a place where one camera may be plugged in.
type bay struct {
	root   *fs.Inode
	byID   *fs.Inode
	camera *camera // the one plugged in, nil when none is
	name   string  // its device file
}

// mountBay mounts an empty bay at dir. Directory entries are not cached by the
// kernel, so that an unplugged camera is gone at once.
func mountBay(dir string) (*bay, error) {
	root := &fs.Inode{}
	b := &bay{root: root}
	attrs := time.Hour // a change of size or time would drop cached pages, which are the buffers
	_, err := fs.Mount(dir, root, &fs.Options{
		AttrTimeout: &attrs,
		OnAdd: func(ctx context.Context) {
			b.byID = root.NewPersistentInode(ctx, &fs.Inode{}, fs.StableAttr{Mode: fuse.S_IFDIR})
			root.AddChild(byIDFolder, b.byID, false)
		},
		MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "fakev4l2", FsName: "fakev4l2"},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return b, nil
}

// unmountLazily takes the mount away from its folder even while files in it
// are open. A folder that is no mount is left as it is.
func unmountLazily(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// plug puts a camera in: its device file under name, its identity beside it.
func (b *bay) plug(c *camera, name string) error {
	if b.camera != nil {
		return fmt.Errorf("plug in at %q: the camera is already plugged in at %q", name, b.name)
	}
	ctx := context.Background()
	node := &deviceNode{camera: c}
	c.store = node.WriteCache
	if !b.root.AddChild(name, b.root.NewPersistentInode(ctx, node, fs.StableAttr{Mode: fuse.S_IFREG}), false) {
		return fmt.Errorf("plug in at %q: the name is taken", name)
	}
	link := &fs.MemSymlink{Data: []byte("../" + name)}
	b.byID.AddChild(byIDName, b.byID.NewPersistentInode(ctx, link, fs.StableAttr{Mode: fuse.S_IFLNK}), true)
	b.camera, b.name = c, name
	return nil
}

// unplug pulls the camera out: its names are gone, and who has it open gets
// ENODEV from everything.
func (b *bay) unplug() error {
	if b.camera == nil {
		return fmt.Errorf("unplug: the camera is not plugged in")
	}
	b.byID.RmChild(byIDName)
	b.root.RmChild(b.name)
	close(b.camera.gone)
	b.camera = nil
	return nil
}

// deviceNode is the device file of a camera.
type deviceNode struct {
	fs.Inode
	camera *camera
}

var (
	_ fs.NodeOpener    = (*deviceNode)(nil)
	_ fs.NodeReleaser  = (*deviceNode)(nil)
	_ fs.NodeGetattrer = (*deviceNode)(nil)
	_ fs.NodeReader    = (*deviceNode)(nil)
	_ fs.NodeIoctler   = (*deviceNode)(nil)
)

// Open gives each descriptor a handle of its own: buffers belong to one.
func (n *deviceNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	c := n.camera
	select {
	case <-c.gone:
		return nil, 0, syscall.ENODEV
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Open++
	return &handle{nonblock: flags&syscall.O_NONBLOCK != 0}, fuse.FOPEN_KEEP_CACHE, 0
}

// Release is the close of the last copy of a descriptor, or the end of its process.
func (n *deviceNode) Release(_ context.Context, f fs.FileHandle) syscall.Errno {
	if h, ok := f.(*handle); ok {
		n.camera.release(h)
	}
	return 0
}

// Getattr gives the file a size that all buffers fit in, or a mapping of them
// would fault.
func (n *deviceNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFREG | 0o660
	out.Size = uint64(maxBuffers * n.camera.bufferLen)
	return 0
}

// Read serves a page of a buffer that the kernel has dropped from its cache.
func (n *deviceNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	c := n.camera
	c.memory.RLock()
	defer c.memory.RUnlock()
	clear(dest)
	if off < int64(len(c.buffers)) {
		copy(dest, c.buffers[off:])
	}
	return fuse.ReadResultData(dest), 0
}

// Ioctl hands the request to the camera. The kernel has copied the argument in
// and copies it out again, by the size that the request number states.
func (n *deviceNode) Ioctl(ctx context.Context, f fs.FileHandle, request uint32, _ uint64, in, out []byte) (int32, syscall.Errno) {
	h, ok := f.(*handle)
	if !ok {
		return 0, syscall.EBADF
	}
	a := make(arg, max(len(in), len(out)))
	copy(a, in)
	errno := n.camera.ioctl(ctx, h, request, a)
	copy(out, a)
	return 0, errno
}
