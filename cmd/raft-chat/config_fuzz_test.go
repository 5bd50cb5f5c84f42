package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/raft-chat/raft-chat/internal/server"
)

// FuzzConfiguration: a configuration file of either layout and an environment
// become a configuration that the server takes as it is, or one line that names
// the place of the mistake.
func FuzzConfiguration(f *testing.F) {
	f.Add(raftogramFile, "")
	f.Add(raftogramFile, "RAFT_CHAT_PORT=9\nRAFTOGRAM_DEV=x")
	f.Add(raftogramFile+"port: 1\n", "RAFT_CHAT_ID=2")
	f.Add("port: 7\ncluster: [http://127.0.0.1:1, http://127.0.0.1:2, http://127.0.0.1:3]\nid: 3\n", "")
	f.Add("", "RAFT_CHAT_ID=2\nRAFT_CHAT_CLUSTER=1=http://a:1,2=http://b:2\nRAFT_CHAT_JOIN=1\nRAFT_CHAT_INSECURE_PEERS=true")
	f.Add("max_body_bytes: 1KiB\nmax_message_bytes: 2KiB\n", "RAFT_CHAT_TICK_INTERVAL=0s")
	f.Add("host: '[::1]'\nlisten_health: 127.0.0.1:0\n", "RAFT_CHAT_MIN_FREE_BYTES=0")
	f.Add("port: 7\n", "RAFT_CHAT_PORT=tcp://10.0.0.1:80\nRAFT_CHAT_NAME=/a/b\nRAFT_CHAT_ID=5\nRAFT_CHAT_MESSAGE_ID=5\nRAFT_CHAT_PROT=1")
	f.Add("data_dir: \"\\0\"\n", "RAFT_CHAT_ALLOWED_ORIGINS=*")
	path := filepath.Join(f.TempDir(), "f.yaml")
	f.Fuzz(func(t *testing.T, file, variables string) {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		env := parseEnvironment(strings.Split(variables, "\n"))
		delete(env, "RAFTOGRAM_CONFIG")
		env["RAFT_CHAT_CONFIG"] = path
		s := defaultSettings()
		fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		s.register(fs)
		var names []string
		fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		env, _ = env.settings(names)
		from, layout, err := resolve(fs, names, env)
		var c server.Config
		if err == nil {
			c, err = s.serverConfig(from, layout)
		}
		if err != nil {
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), ": ") || strings.Contains(oneLine(err.Error()), "\n") {
				t.Fatalf("error %q", err)
			}
			return
		}
		if !slices.ContainsFunc(c.Cluster, func(p server.Peer) bool { return p.ID == c.ID }) {
			t.Fatalf("node %d is not in %+v", c.ID, c.Cluster)
		}
		again := c
		if err := again.Validate(); err != nil {
			t.Fatalf("taken, and refused the second time: %v", err)
		}
		if again.Listen != c.Listen || again.ListenPeer != c.ListenPeer || again.DataDir != c.DataDir || !slices.Equal(again.Cluster, c.Cluster) {
			t.Fatalf("%+v becomes %+v", c, again)
		}
	})
}
