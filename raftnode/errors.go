package raftnode

import (
	"errors"
	"fmt"
)

// The codes an Error can carry. They are part of the interface: the APIs map
// them to statuses, so a code is never renamed.
const (
	CodeNoLeader       = "no_leader"              // nothing was proposed; another node or a later try may work
	CodeOutcomeUnknown = "outcome_unknown"        // proposed, and may or may not be committed later
	CodeOverloaded     = "overloaded"             // refused before it was proposed: apply lags or the log is full of uncommitted entries
	CodeStorageLow     = "disk_full"              // refused before it was proposed: the disk here, or a voter's, is nearly full
	CodeClockSkew      = "clock_skew"             // refused before it was proposed: the clock is off against the voters'
	CodeStopping       = "stopping"               // the node is being closed or has failed
	CodeMemberID       = "member_id_invalid"      // an id of zero, or one that raft keeps for itself
	CodeMemberURL      = "member_url_invalid"     // not an http URL of host and port, or one where peers may not speak in plaintext
	CodeMemberLimit    = "member_limit_reached"   // the cluster has as many members as are supported
	CodeMemberExists   = "member_exists"          // the id or the URL is taken
	CodeMemberIDUsed   = "member_id_used"         // the id was removed; ids are never used again
	CodeMemberNotFound = "member_not_found"       // no member has the id
	CodeLearnerBehind  = "learner_not_ready"      // the learner is not caught up
	CodeQuorumAtRisk   = "quorum_at_risk"         // the change would leave too few members that answer
	CodeCommandFailed  = "command_failed"         // the change made its decision panic, on every node alike: it was rejected
	CodeTransferFailed = "leader_transfer_failed" // the leadership did not move within an election timeout
)

// Error is a failure that the caller can tell apart by its code.
type Error struct {
	Code   string
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// ErrorCode returns the stable code.
func (e *Error) ErrorCode() string { return e.Code }

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// IdentityError says that this data directory may not take part in the
// cluster under its member id. Starting again does not help; the text names
// the remedy.
type IdentityError struct{ Reason string }

func (e *IdentityError) Error() string { return e.Reason }

// ErrRemoved is why a node stopped that was removed from the cluster: not a
// failure, the program ends with exit code 0.
var ErrRemoved = errors.New("this node was removed from the cluster")
