//go:build linux

package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diskSize is the size of a disk in MiB.
type diskSize int

// A node preallocates two log segments of 64 MiB; the rest is for its store.
const (
	smallDisk diskSize = 512
	usualDisk diskSize = 1024
	largeDisk diskSize = 2048
	hugeDisk  diskSize = 24 << 10
)

// disk is an ext4 file system in a sparse file of its own.
type disk struct {
	image string
	path  string // where it is mounted
}

func newDisk(ctx context.Context, dir string, id int, size diskSize) (*disk, error) {
	d := &disk{image: filepath.Join(dir, fmt.Sprintf("disk%d.img", id)), path: filepath.Join(dir, fmt.Sprintf("disk%d", id))}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(int64(size)<<20), f.Close()); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	// Few inodes and a small journal, nothing kept for root: quick to make,
	// and full when it is full.
	if err := commands(ctx, "mkfs.ext4 -q -F -N 4096 -m 0 -J size=8 -E lazy_itable_init=0,lazy_journal_init=0 "+d.image); err != nil {
		return nil, err
	}
	return d, d.mount(ctx)
}

func (d *disk) mount(ctx context.Context) error {
	_, err := command(ctx, "mount", "-o", "loop,noatime", d.image, d.path)
	return err
}

func (d *disk) unmount(ctx context.Context) error { return unmount(ctx, d.path) }

// powerOff makes the file system forget at once whatever was not synced: no
// write of data or journal reaches the image from now on.
func (d *disk) powerOff(ctx context.Context) error {
	_, err := command(ctx, "xfs_io", "-x", "-c", "shutdown", d.path)
	return err
}

// powerOn mounts it again, which replays its journal. Nothing may use it.
func (d *disk) powerOn(ctx context.Context) error {
	if err := d.unmount(ctx); err != nil {
		return err
	}
	return d.mount(ctx)
}

// ballast is the file that fills a disk.
const ballast = "ballast"

// fillAttempts is how often fill looks again: a node that writes meanwhile takes
// some of the space that was free a moment ago.
const fillAttempts = 20

// fill takes all space but keep bytes.
func (d *disk) fill(ctx context.Context, keep int64) (err error) {
	path := filepath.Join(d.path, ballast)
	for range fillAttempts {
		free, ferr := d.free()
		if ferr != nil {
			return ferr
		}
		if free <= keep {
			return nil
		}
		taken := int64(0) // also by an attempt that failed halfway
		var s syscall.Stat_t
		if syscall.Stat(path, &s) == nil {
			taken = s.Blocks * 512
		}
		if _, err = command(ctx, "fallocate", "-l", fmt.Sprint(taken+free-keep), path); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// drain gives the space back.
func (d *disk) drain() error {
	if err := os.Remove(filepath.Join(d.path, ballast)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free disk: %w", err)
	}
	return nil
}

// free is how many bytes can be written.
func (d *disk) free() (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.path, &s); err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// unmount waits for whoever still closes files there.
func unmount(ctx context.Context, path string) error {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := command(ctx, "umount", path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// clearDisks unmounts everything below dir; the loop devices go with it.
func clearDisks(ctx context.Context, dir string) error {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var errs []error
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			errs = append(errs, unmount(ctx, fields[1]))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
