package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/raft-chat/raft-chat/client"
	"github.com/raft-chat/raft-chat/internal/server"
)

// settingNames are the settings of a node.
func settingNames() []string {
	var names []string
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	defaultSettings().register(fs)
	fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// What others put into the environment under our prefix steers nothing; where
// it might have been meant, one line says that it was passed over.
func TestEnvironmentOfOthers(t *testing.T) {
	kubernetes := []string{
		"RAFT_CHAT_SERVICE_HOST=10.0.0.1", "RAFT_CHAT_SERVICE_PORT=80", "RAFT_CHAT_SERVICE_PORT_HTTP=80", "RAFT_CHAT_SERVICE_PORT_RAFT_PEERS=12379",
		"RAFT_CHAT_PORT=tcp://10.0.0.1:80", "RAFT_CHAT_PORT_80_TCP=tcp://10.0.0.1:80", "RAFT_CHAT_PORT_80_TCP_PROTO=tcp",
		"RAFT_CHAT_PORT_80_TCP_PORT=80", "RAFT_CHAT_PORT_80_TCP_ADDR=10.0.0.1", "RAFT_CHAT_PORT_53_UDP=udp://10.0.0.1:53",
	}
	for _, tt := range []struct {
		name string
		args string
		env  []string
		file string
		want func(c *server.Config)
		logs []string // one warning each, which begins like this
	}{
		{name: "Kubernetes, a Service named raft-chat", env: kubernetes, logs: []string{"RAFT_CHAT_PORT=tcp://10.0.0.1:80 is passed over"}},
		{name: "the same, and the file says the port", env: kubernetes, args: "--config config.yaml", file: "port: 7\n",
			want: func(c *server.Config) { c.Listen = "127.0.0.1:7" }, logs: []string{"RAFT_CHAT_PORT=tcp://10.0.0.1:80 is passed over"}},
		{name: "the same, and a flag says the port", env: kubernetes, args: "--port 7",
			want: func(c *server.Config) { c.Listen = "127.0.0.1:7" }, logs: []string{"RAFT_CHAT_PORT=tcp://10.0.0.1:80 is passed over"}},
		{name: "IPv6", env: []string{"RAFT_CHAT_PORT=tcp://[fd00::1]:80"}, logs: []string{"RAFT_CHAT_PORT=tcp://[fd00::1]:80 is passed over"}},
		{name: "UDP", env: []string{"RAFT_CHAT_PORT=udp://10.0.0.1:80"}, logs: []string{"RAFT_CHAT_PORT=udp://10.0.0.1:80 is passed over"}},
		{name: "SCTP", env: []string{"RAFT_CHAT_PORT=sctp://10.0.0.1:80"}, logs: []string{"RAFT_CHAT_PORT=sctp://10.0.0.1:80 is passed over"}},
		{name: "Services whose names begin like ours", env: []string{
			"RAFT_CHAT_GRPC_SERVICE_HOST=10.0.0.1", "RAFT_CHAT_GRPC_SERVICE_PORT=9000", "RAFT_CHAT_GRPC_PORT=tcp://10.0.0.1:9000", "RAFT_CHAT_GRPC_PORT_9000_TCP_ADDR=10.0.0.1",
			"RAFT_CHAT_ID_PORT=tcp://10.0.0.1:1", "RAFTOGRAM_PORT=tcp://10.0.0.1:9000", "RAFTOGRAM_SERVICE_HOST=10.0.0.1", "RAFTOGRAM_CONFIG_PORT=tcp://10.0.0.1:1"}},
		{name: "Docker, a link named raft-chat", env: []string{"RAFT_CHAT_NAME=/web/raft-chat", "RAFT_CHAT_PORT=tcp://172.17.0.2:12380", "RAFT_CHAT_PORT_12380_TCP=tcp://172.17.0.2:12380", "RAFT_CHAT_ENV_PORT=9"},
			logs: []string{"RAFT_CHAT_NAME=/web/raft-chat is passed over", "RAFT_CHAT_PORT=tcp://172.17.0.2:12380 is passed over"}},
		{name: "a command of tail --exec", env: []string{"RAFT_CHAT_ROOM=ops", "RAFT_CHAT_USER=ann", "RAFT_CHAT_MESSAGE=hi", "RAFT_CHAT_RAW={}", "RAFT_CHAT_ID=57", "RAFT_CHAT_MESSAGE_ID=57", "RAFT_CHAT_SEQ=3", "RAFT_CHAT_TIME=now"},
			logs: []string{"RAFT_CHAT_ID is passed over"}},
		{name: "the same, which says its own id", env: []string{"RAFT_CHAT_ID=2", "RAFT_CHAT_MESSAGE_ID=57", "RAFT_CHAT_CLUSTER=" + threeNodes}, want: func(c *server.Config) {
			c.ID, c.Name, c.DataDir, c.Cluster, c.ListenPeer = 2, "2", "./raft-chat-2", threePeers(), "127.0.0.1:22379"
		}},
		{name: "the same, by flag", args: "--id 2 --cluster " + threeNodes, env: []string{"RAFT_CHAT_ID=57", "RAFT_CHAT_MESSAGE_ID=57"}, want: func(c *server.Config) {
			c.ID, c.Name, c.DataDir, c.Cluster, c.ListenPeer = 2, "2", "./raft-chat-2", threePeers(), "127.0.0.1:22379"
		}, logs: []string{"RAFT_CHAT_ID is passed over"}},
		{name: "mistyped", env: []string{"RAFT_CHAT_DATA_DRI=x", "RAFT_CHAT_COLOUR=red", "RAFTOGRAM_CONFG=x", "RAFT_CHATTER=1", "RAFT_PORT=tcp://10.0.0.1:1"}, logs: []string{
			"RAFTOGRAM_CONFG is not a setting and has no effect; did you mean RAFTOGRAM_CONFIG?",
			"RAFT_CHAT_COLOUR is not a setting and has no effect",
			"RAFT_CHAT_DATA_DRI is not a setting and has no effect; did you mean RAFT_CHAT_DATA_DIR?"}},
		{name: "for the client commands", env: []string{"RAFT_CHAT_ENDPOINTS=http://127.0.0.1:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				write(t, dir, "config.yaml", tt.file)
			}
			got := invoke(t, dir, strings.Fields(tt.args), tt.env...)
			if got.code != exitOK || got.config == nil {
				t.Fatalf("exit code %d: %s", got.code, got.stderr)
			}
			diff := cmp.Diff(withDefaults(tt.want), *got.config, cmpopts.EquateEmpty(),
				cmpopts.IgnoreFields(server.Config{}, "Logger", "Version"))
			if diff != "" {
				t.Errorf("configuration (- want, + got):\n%s", diff)
			}
			var warnings []string
			for _, line := range logLines(t, got.stderr) {
				if line["level"] == "WARN" {
					warnings = append(warnings, line["msg"].(string))
				}
			}
			if !slices.EqualFunc(warnings, tt.logs, strings.HasPrefix) {
				t.Errorf("warnings %q, want %q", warnings, tt.logs)
			}
		})
	}
}

// A variable for commands of tail --exec that is also a setting has to be told
// apart from it, as ID is.
func TestHookVariablesAreNoSettings(t *testing.T) {
	for _, name := range settingNames() {
		if hook := strings.TrimPrefix(envName(name), envPrefix); name != "id" && slices.Contains(hookVariables(), hook) {
			t.Errorf("tail --exec sets %s, which is --%s as well", envName(name), name)
		}
	}
	var got []string
	for _, v := range (&messageCommand{}).environ(client.Message{ID: 57}) {
		name, value, _ := strings.Cut(v, "=")
		got = append(got, strings.TrimPrefix(name, envPrefix))
		if strings.HasSuffix(name, "_ID") && value != "57" {
			t.Errorf("%s, want 57", v)
		}
	}
	if want := slices.Sorted(slices.Values(hookVariables())); !slices.Equal(got, want) {
		t.Errorf("tail --exec sets %q, want %q", got, want)
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"--port", "--host", "--data-dir", "--id", "--max-body-bytes"}
	for word, want := range map[string]string{
		"--prot": "--port", "--datadir": "--data-dir", "--data_dir": "--data-dir", "--max-bodybytes": "--max-body-bytes",
		"--colour": "", "-": "", "": "", "--i": "--id",
	} {
		got := didYouMean(word, known)
		if want != "" {
			want = "; did you mean " + want + "?"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"port", "prot", 1}, {"abc", "cab", 2}, {"kitten", "sitting", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
