package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// residentBytes returns the resident memory of a process, in bytes, from its
// status file under proc.
func residentBytes(proc string, pid int) (int64, error) {
	status, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	n, err := parseResident(status)
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return n, nil
}

// parseResident finds VmRSS in the text of proc_pid_status(5).
func parseResident(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		value, found := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !found {
			continue
		}
		digits, found := bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		n, err := strconv.ParseUint(string(digits), 10, 53)
		if !found || err != nil {
			return 0, errors.New("VmRSS is not a number of kB")
		}
		return int64(n) << 10, nil
	}
	// A process that has ended but was not waited for has none.
	return 0, errors.New("no VmRSS: the process has ended")
}
