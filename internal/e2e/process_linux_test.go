package e2e

import "syscall"

// processGroup puts a child into a group of its own and has it killed should
// the test's process die without its cleanup.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
