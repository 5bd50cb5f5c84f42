package raftnode

import (
	"errors"
	"fmt"
)

// damageError says where a data directory is not what this member wrote.
// openDisk adds the remedy.
type damageError struct {
	path   string
	offset int64 // -1: the file as a whole, or its absence
	why    error
}

func (e *damageError) Error() string {
	if e.offset < 0 {
		return fmt.Sprintf("the log is damaged: %s: %v", e.path, e.why)
	}
	return fmt.Sprintf("the log is damaged: %s at offset %d: %v", e.path, e.offset, e.why)
}

func (e *damageError) Unwrap() error { return e.why }

func damaged(path string, offset int64, why error) error { return &damageError{path, offset, why} }

// withRemedy adds to err, if it tells of damage, what to do about it.
func withRemedy(err error, memberID uint64) error {
	var d *damageError
	if !errors.As(err, &d) {
		return err
	}
	return fmt.Errorf("%w. This member may have forgotten what it acknowledged and must not vote again. Remedy: %s", err, remedy(memberID))
}

// remedy names the command that puts a fresh member in the place of one whose
// directory cannot be used any more.
func remedy(memberID uint64) string {
	return fmt.Sprintf("move the directory away and replace the member: run `raft-chat members replace %d` against a node that is up (--endpoints) and start what it prints. "+
		"That takes a majority of the members: where fewer are up, start the others first. "+
		"If no other member has the messages, or a majority is lost for good, only copies of whole data directories help", memberID)
}
