// Package private opens folders that only their owner may use: who can enter a
// folder of sockets can speak on the bus, and who can truncate a mapped file
// can kill its readers.
//
//	path --> make (0700) where absent --> open --> ours, and closed to others? --> os.Root
//
// A folder of another user, or one that is too open, is refused with what to
// do about it.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Open opens the folder, making it where it is absent. It is refused where
// another user owns it, or where any of the forbidden permissions is given. key
// is the setting that names the folder.
func Open(path, key string, forbidden fs.FileMode) (*os.Root, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", key, err)
	}
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open %s: %w%s", key, err, Whose(path, key))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	info, err := root.Stat(".") // of the folder we hold, whatever its path names by now
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", key, err), root.Close())
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) != os.Geteuid():
		err = fmt.Errorf("%s = %q belongs to another user%s", key, path, Whose(path, key))
	case info.Mode().Perm()&forbidden != 0:
		err = fmt.Errorf("%s = %q has mode %#o, which lets others in: chmod 700 %s, or choose another %s", key, path, info.Mode().Perm(), path, key)
	default:
		return root, nil
	}
	return nil, errors.Join(err, root.Close())
}

// Whose is the end of a message about a folder that cannot be used: whose it
// is, and what can be done. It is empty where the folder is this user's own.
func Whose(path, key string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return ""
	}
	return fmt.Sprintf("; it is %s's and this is %s: work as that user, give it away (sudo chown), remove it where it is left over, or choose another %s",
		name(int(st.Uid)), name(os.Geteuid()), key)
}

func name(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "user " + strconv.Itoa(uid)
}
