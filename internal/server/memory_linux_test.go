package server

import (
	"math"
	"os"
	"testing"
)

func TestMemoryOfControlGroups(t *testing.T) {
	for _, tt := range []struct {
		name, groups string
		files        map[string]string
		want         int64
	}{
		{name: "none", groups: "", want: math.MaxInt64},
		{name: "v2", groups: "0::/a/b\n", files: map[string]string{"/sys/fs/cgroup/a/b/memory.max": "1000\n"}, want: 1000},
		{name: "v2 without a limit", groups: "0::/a\n", files: map[string]string{"/sys/fs/cgroup/a/memory.max": "max\n"}, want: math.MaxInt64},
		{name: "the limit of a parent", groups: "0::/a/b\n", files: map[string]string{
			"/sys/fs/cgroup/a/memory.max": "500\n", "/sys/fs/cgroup/a/b/memory.max": "1000\n"}, want: 500},
		{name: "a container that sees only its root", groups: "0::/docker/123\n", files: map[string]string{"/sys/fs/cgroup/memory.max": "700\n"}, want: 700},
		{name: "v1", groups: "5:cpu,cpuacct:/x\n4:memory:/x\n", files: map[string]string{
			"/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "800\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, want: 800},
		{name: "nonsense", groups: "::\nx\n0::..\n", files: map[string]string{"/sys/fs/cgroup/memory.max": "-1\n"}, want: math.MaxInt64},
	} {
		read := func(name string) ([]byte, error) {
			if text, ok := tt.files[name]; ok {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		}
		if got := cgroupMemory([]byte(tt.groups), read); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if got := machineMemory(); got <= 0 || got == math.MaxInt64 {
		t.Errorf("this machine has %d bytes", got)
	}
}
