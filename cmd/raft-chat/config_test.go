package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/raft-chat/raft-chat/internal/server"
)

// withDefaults returns the configuration of the bare command, edited.
func withDefaults(edit func(c *server.Config)) server.Config {
	c := server.Config{
		ID: 1, Name: "1", Cluster: []server.Peer{{ID: 1, URL: "http://127.0.0.1:12379"}},
		DataDir: "./raft-chat-1", Listen: "127.0.0.1:12380", ListenPeer: "127.0.0.1:12379",
		TickInterval: 100 * time.Millisecond, ElectionTicks: 10,
		MaxBodyBytes: 1 << 20, MaxMessageBytes: 64 << 10, MinFreeBytes: 512 << 20, CatchUpBytes: 64 << 20,
		MemoryBudget:   server.DefaultMemoryBudget(),
		RequestTimeout: 5 * time.Second, LeaderGrace: 10 * time.Second, KeepaliveInterval: 15 * time.Second, PingInterval: 20 * time.Second, PongTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, ShutdownTimeout: 10 * time.Second,
	}
	if edit != nil {
		edit(&c)
	}
	return c
}

const threeNodes = "http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379"

func threePeers() []server.Peer {
	return []server.Peer{
		{ID: 1, URL: "http://127.0.0.1:12379"}, {ID: 2, URL: "http://127.0.0.1:22379"}, {ID: 3, URL: "http://127.0.0.1:32379"},
	}
}

// raftogramFile is the layout as it is published, for the second node.
const raftogramFile = `cluster:
  node_id: "node2"
  raft_bind_addr: "127.0.0.1:7001"
  grpc_bind_addr: "127.0.0.1:9001"
  health_bind_addr: "127.0.0.1:8081"
  data_dir: "./data/node2"
  peers:
    - {node_id: "node1", raft_addr: "127.0.0.1:7000", grpc_addr: "127.0.0.1:9000"}
    - {node_id: "node2", raft_addr: "127.0.0.1:7001", grpc_addr: "127.0.0.1:9001"}
    - {node_id: "node3", raft_addr: "127.0.0.1:7002", grpc_addr: "127.0.0.1:9002"}
`

func raftogramConfig(c *server.Config) {
	c.ID, c.Name, c.DataDir = 2, "node2", "./data/node2"
	c.Listen, c.ListenPeer, c.ListenGRPC, c.AdvertiseGRPC = "127.0.0.1:8081", "127.0.0.1:7001", "127.0.0.1:9001", "127.0.0.1:9001"
	c.Cluster = []server.Peer{
		{ID: 1, URL: "http://127.0.0.1:7000", Name: "node1", GRPCAddr: "127.0.0.1:9000"},
		{ID: 2, URL: "http://127.0.0.1:7001", Name: "node2", GRPCAddr: "127.0.0.1:9001"},
		{ID: 3, URL: "http://127.0.0.1:7002", Name: "node3", GRPCAddr: "127.0.0.1:9002"},
	}
}

func TestConfiguration(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string
		env  []string
		file string // config.yaml in the working directory
		want func(c *server.Config)
	}{
		{name: "nothing said"},
		{name: "seed, single node", args: "--id 1 --cluster http://127.0.0.1:12379 --port 12380"},
		{name: "seed, second of three", args: "--id 2 --cluster " + threeNodes + " --port 22380", want: func(c *server.Config) {
			c.ID, c.Name, c.DataDir, c.Cluster = 2, "2", "./raft-chat-2", threePeers()
			c.Listen, c.ListenPeer = "127.0.0.1:22380", "127.0.0.1:22379"
		}},
		{name: "seed, fourth joins", args: "--id 4 --cluster " + threeNodes + ",http://127.0.0.1:42379 --port 42380 --join", want: func(c *server.Config) {
			c.ID, c.Name, c.DataDir, c.Join = 4, "4", "./raft-chat-4", true
			c.Cluster = append(threePeers(), server.Peer{ID: 4, URL: "http://127.0.0.1:42379"})
			c.Listen, c.ListenPeer = "127.0.0.1:42380", "127.0.0.1:42379"
		}},
		{name: "serve by name", args: "serve --port 1", want: func(c *server.Config) { c.Listen = "127.0.0.1:1" }},
		{name: "flags before serve", args: "--port 1 serve", want: func(c *server.Config) { c.Listen = "127.0.0.1:1" }},
		{name: "one dash", args: "-id 1 -cluster=http://127.0.0.1:12379 -port 5 -dev", want: func(c *server.Config) { c.Listen = "127.0.0.1:5" }},
		{name: "a value with a dash", args: "--name -port --port 5", want: func(c *server.Config) { c.Name, c.Listen = "-port", "127.0.0.1:5" }},
		{name: "ids with gaps", args: "--id 7 --cluster 2=http://127.0.0.1:12379,7=http://127.0.0.1:22379/,9=http://LOCALHOST:1", want: func(c *server.Config) {
			c.ID, c.Name, c.DataDir, c.ListenPeer = 7, "7", "./raft-chat-7", "127.0.0.1:22379"
			c.Cluster = []server.Peer{{ID: 2, URL: "http://127.0.0.1:12379"}, {ID: 7, URL: "http://127.0.0.1:22379"}, {ID: 9, URL: "http://localhost:1"}}
		}},
		{name: "cluster given repeatedly", args: "--cluster http://127.0.0.1:12379 --cluster http://127.0.0.1:22379,http://127.0.0.1:32379", want: func(c *server.Config) {
			c.Cluster = threePeers()
		}},
		{name: "port 0", args: "--port 0", want: func(c *server.Config) { c.Listen = "127.0.0.1:0" }},
		{name: "IPv6", args: "--host [::1] --cluster http://[::1]:12379", want: func(c *server.Config) {
			c.Listen, c.ListenPeer, c.Cluster[0].URL = "[::1]:12380", "[::1]:12379", "http://[::1]:12379"
		}},
		{name: "bodies follow messages", args: "--max-message-bytes 512KiB", want: func(c *server.Config) {
			c.MaxMessageBytes, c.MaxBodyBytes = 512<<10, 6*512<<10+16<<10
		}},
		{name: "every other flag", args: "--host 0.0.0.0 --name ann --data-dir d --listen-peer 127.0.0.1:9 --listen-health 127.0.0.1:8" +
			" --advertise-client http://chat.example --advertise-grpc chat.example:9 --insecure-peers --allowed-origins https://a.example,http://b.example:8080 --allowed-hosts c.example,*.d.example" +
			" --max-message-bytes 1KiB --max-body-bytes 2mib --min-free-bytes 1GiB --catch-up-bytes 3MiB --memory-budget 40MiB --request-timeout 1s --ping-interval 2s --pong-timeout 3s" +
			" --write-timeout 4s --shutdown-timeout 5s --tick-interval 6ms --election-ticks 7 --log-level error", want: func(c *server.Config) {
			c.Listen, c.Name, c.DataDir, c.ListenPeer, c.ListenHealth = "0.0.0.0:12380", "ann", "d", "127.0.0.1:9", "127.0.0.1:8"
			c.AdvertiseClient, c.AdvertiseGRPC, c.InsecurePeers = "http://chat.example", "chat.example:9", true
			c.AllowedOrigins = []string{"https://a.example", "http://b.example:8080"}
			c.AllowedHosts = []string{"c.example", "*.d.example"}
			c.MaxMessageBytes, c.MaxBodyBytes, c.MinFreeBytes, c.CatchUpBytes = 1<<10, 2<<20, 1<<30, 3<<20
			c.MemoryBudget = 40 << 20
			c.RequestTimeout, c.PingInterval, c.PongTimeout = time.Second, 2*time.Second, 3*time.Second
			c.WriteTimeout, c.ShutdownTimeout, c.TickInterval, c.ElectionTicks = 4*time.Second, 5*time.Second, 6*time.Millisecond, 7
		}},
		{name: "no reserve", args: "--min-free-bytes 0", want: func(c *server.Config) { c.MinFreeBytes = -1 }},
		{name: "peers elsewhere, allowed", args: "--insecure-peers --cluster http://10.0.0.1:1", want: func(c *server.Config) {
			c.InsecurePeers, c.ListenPeer, c.Cluster[0].URL = true, "10.0.0.1:1", "http://10.0.0.1:1"
		}},

		{name: "environment", env: []string{"RAFT_CHAT_DATA_DIR=e", "RAFT_CHAT_PORT=7", "RAFT_CHAT_JOIN=1", "RAFT_CHAT_ID=2", "RAFT_CHAT_CLUSTER=" + threeNodes}, want: func(c *server.Config) {
			c.DataDir, c.Listen, c.Join, c.ID, c.Name, c.Cluster, c.ListenPeer = "e", "127.0.0.1:7", true, 2, "2", threePeers(), "127.0.0.1:22379"
		}},
		{name: "empty variables are not set", env: []string{"RAFT_CHAT_DATA_DIR=", "RAFT_CHAT_PORT=", "RAFT_CHAT_CONFIG="}},
		{name: "variables of others", env: []string{"RAFT_CHAT_SERVICE_HOST=10.0.0.1", "RAFT_CHAT_VERSION=1", "RAFT_CHAT_HELP=1", "PORT=5000"}},
		{name: "file", args: "--config config.yaml", file: "port: 7\ndata_dir: f\nshutdown_timeout: 3s\njoin: true\nmax_message_bytes: 10\ncluster: " + threeNodes, want: func(c *server.Config) {
			c.Listen, c.DataDir, c.ShutdownTimeout, c.Join, c.MaxMessageBytes = "127.0.0.1:7", "f", 3*time.Second, true, 10
			c.Cluster = threePeers()
		}},
		{name: "file with lists and an alias", args: "--config config.yaml", file: "id: &one 1\nname: *one\ncluster: [http://127.0.0.1:12379, http://127.0.0.1:22379,\n  3=http://127.0.0.1:32379]\n", want: func(c *server.Config) {
			c.Cluster = threePeers()
		}},
		{name: "file with a comma list", args: "--config config.yaml", file: "cluster: " + threeNodes, want: func(c *server.Config) { c.Cluster = threePeers() }},
		{name: "empty file", args: "--config config.yaml", file: "# nothing\n"},
		{name: "file by environment", env: []string{"RAFT_CHAT_CONFIG=config.yaml", "RAFTOGRAM_CONFIG=absent.yaml"}, file: "port: 7", want: func(c *server.Config) { c.Listen = "127.0.0.1:7" }},

		{name: "flag over environment over file", args: "--config config.yaml --port 1", env: []string{"RAFT_CHAT_PORT=2", "RAFT_CHAT_HOST=127.0.0.2"},
			file: "port: 3\nhost: 127.0.0.3\nname: c\n", want: func(c *server.Config) { c.Listen, c.Name = "127.0.0.2:1", "c" }},
		{name: "a flag with its default value wins too", args: "--port 12380 --join=false", env: []string{"RAFT_CHAT_PORT=2", "RAFT_CHAT_JOIN=true"}},
		{name: "a flag over a bad variable", args: "--port 1", env: []string{"RAFT_CHAT_PORT=abc"}, want: func(c *server.Config) { c.Listen = "127.0.0.1:1" }},
		{name: "a flag replaces a list", args: "--config config.yaml --cluster http://127.0.0.1:1", file: "cluster: " + threeNodes, want: func(c *server.Config) {
			c.Cluster[0].URL, c.ListenPeer = "http://127.0.0.1:1", "127.0.0.1:1"
		}},

		{name: "raftogram", args: "-config config.yaml -dev", file: raftogramFile, want: raftogramConfig},
		{name: "raftogram by environment", env: []string{"RAFTOGRAM_CONFIG=config.yaml", "RAFTOGRAM_DEV=yes"}, file: raftogramFile, want: raftogramConfig},
		{name: "raftogram with a port", args: "--config config.yaml --port 5", file: raftogramFile, want: func(c *server.Config) {
			raftogramConfig(c)
			c.Listen, c.ListenHealth = "127.0.0.1:5", "127.0.0.1:8081"
		}},
		{name: "raftogram with a port in the file", args: "--config config.yaml", file: "port: 5\n" + raftogramFile + "log_level: warn\n", want: func(c *server.Config) {
			raftogramConfig(c)
			c.Listen, c.ListenHealth = "127.0.0.1:5", "127.0.0.1:8081"
		}},
		{name: "raftogram with a host and a health listener", args: "--config config.yaml --host ::1 --listen-health 127.0.0.1:6", file: raftogramFile, want: func(c *server.Config) {
			raftogramConfig(c)
			c.Listen, c.ListenHealth = "[::1]:12380", "127.0.0.1:6"
		}},
		{name: "raftogram overridden", args: "--config config.yaml --data-dir x --listen-peer 127.0.0.1:5", env: []string{"RAFT_CHAT_ADVERTISE_GRPC=h:1"}, file: raftogramFile, want: func(c *server.Config) {
			raftogramConfig(c)
			c.DataDir, c.ListenPeer, c.AdvertiseGRPC = "x", "127.0.0.1:5", "h:1"
		}},
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
			if got.config.Version == "" || got.config.Logger == nil {
				t.Error("no version or no logger")
			}
			diff := cmp.Diff(withDefaults(tt.want), *got.config, cmpopts.EquateEmpty(),
				cmpopts.IgnoreFields(server.Config{}, "Logger", "Version"))
			if diff != "" {
				t.Errorf("configuration (- want, + got):\n%s", diff)
			}
		})
	}
}

func TestConfigurationRefused(t *testing.T) {
	without := func(line string) string {
		cut := strings.Replace(raftogramFile, line, "", 1)
		if cut == raftogramFile {
			t.Fatalf("%q is not in the file", line)
		}
		return cut
	}
	replace := func(old, new string) string {
		cut := strings.Replace(raftogramFile, old, new, 1)
		if cut == raftogramFile {
			t.Fatalf("%q is not in the file", old)
		}
		return cut
	}
	for _, tt := range []struct {
		name string
		args string
		env  []string
		file string
		want string
	}{
		{name: "unknown flag", args: "--prot 1", want: "unknown flag --prot (see raft-chat --help); did you mean --port?"},
		{name: "unknown flag with one dash", args: "-prot 1", want: "unknown flag --prot"},
		{name: "unknown letter", args: "-p 1", want: "unknown flag -p"},
		{name: "unknown command", args: "server", want: `"server" is neither a command nor a flag`},
		{name: "stray value", args: "serve --join true", want: `"true" is neither`},
		{name: "flag without value", args: "--port", want: "--port: needs a value"},
		{name: "empty flag", args: "--data-dir=", want: "--data-dir: is empty"},
		{name: "empty list flag", args: "--allowed-origins=", want: "--allowed-origins: \"\" is not a list"},
		{name: "port not a number", args: "--port http", want: `--port: "http" is not a port between 0 and 65535`},
		{name: "port too large", args: "--port 65536", want: "--port"},
		{name: "negative port", args: "--port -1", want: `--port: "-1" is not a port`},
		{name: "id not a number", args: "--id one", want: `--id: "one" is not a whole number`},
		{name: "id negative", args: "--id -1", want: `--id: "-1" is not a whole number`},
		{name: "bad duration", args: "--ping-interval 5", want: `--ping-interval: "5" is not a duration such as`},
		{name: "bad size", args: "--max-body-bytes 1MB", want: `--max-body-bytes: "1MB" is not a size`},
		{name: "size too large", args: "--max-body-bytes 9000000000TiB", want: "is not a size"},
		{name: "bad level", args: "--log-level loud", want: `--log-level: "loud" is not debug, info, warn or error`},
		{name: "bad host", args: "--host 127.0.0.1:80", want: `--host: "127.0.0.1:80" is not a host name or an IP address`},

		{name: "id 0", args: "--id 0", want: "--id: 0 is not a node id"},
		{name: "id 0 in the list", args: "--cluster 0=http://127.0.0.1:1", want: "--cluster: 0 is not a node id"},
		{name: "id not in the list", args: "--id 4 --cluster " + threeNodes, want: "--id: 4 is not in the cluster list, which has nodes 1, 2, 3"},
		{name: "id without a list", args: "--id 2", want: "--id: 2 is not in the cluster list, which has only node 1"},
		{name: "id of a position that has another id", args: "--id 1 --cluster 5=http://127.0.0.1:1", want: "--id: 1 is not in the cluster list, which has only node 5"},
		{name: "duplicate id", args: "--cluster 1=http://127.0.0.1:1,1=http://127.0.0.1:2,3=http://127.0.0.1:3", want: "--cluster: id 1 is listed twice"},
		{name: "position meets id", args: "--cluster 2=http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:3", want: "--cluster: id 2 is listed twice"},
		{name: "duplicate URL", args: "--cluster http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:1/", want: "--cluster: http://127.0.0.1:1 is the URL of both node 1 and node 3"},
		{name: "even number", args: "--cluster http://127.0.0.1:1,http://127.0.0.1:2", want: "--cluster: lists 2 voters, but a new cluster needs an odd number"},
		{name: "empty entry", args: "--cluster http://127.0.0.1:1,,http://127.0.0.1:2", want: "--cluster: "},
		{name: "id not numeric", args: "--cluster a=http://127.0.0.1:1", want: `"a" is not a node id`},
		{name: "id too large", args: "--cluster 99999999999999999999=http://127.0.0.1:1", want: "is not a node id"},
		{name: "URL without scheme", args: "--cluster 127.0.0.1:12379", want: `--cluster: peer URL "127.0.0.1:12379": it has no scheme; want http://HOST:PORT`},
		{name: "URL of a name without scheme", args: "--cluster localhost:12379", want: "it has no scheme"},
		{name: "URL without port", args: "--cluster http://127.0.0.1", want: "it has no port"},
		{name: "URL with port 0", args: "--cluster http://127.0.0.1:0", want: "its port is not a number from 1 to 65535"},
		{name: "URL with path", args: "--cluster http://127.0.0.1:1/raft", want: "it has a user, a path, a query or a fragment"},
		{name: "URL with user", args: "--cluster http://u:p@127.0.0.1:1", want: "it has a user, a path, a query or a fragment"},
		{name: "URL with query", args: "--cluster http://127.0.0.1:1?x=1", want: "it has a user, a path, a query or a fragment"},
		{name: "URL without host", args: "--cluster http://:1", want: "it has no host"},
		{name: "URL with TLS", args: "--cluster https://127.0.0.1:1", want: "peers do not speak TLS yet; want http://HOST:PORT"},
		{name: "URL of another protocol", args: "--cluster ftp://127.0.0.1:1", want: "its scheme is not http"},
		{name: "peers elsewhere", args: "--cluster http://10.0.0.1:1", want: "--listen-peer: 10.0.0.1:1 is not a loopback address"},
		{name: "one peer elsewhere", args: "--cluster http://127.0.0.1:1,http://127.0.0.1:2,http://node3:3", want: "--cluster: http://node3:3 is not a loopback address"},
		{name: "listening elsewhere", args: "--listen-peer :12379", want: "--listen-peer: :12379 is not a loopback address"},
		{name: "bad listen-peer", args: "--listen-peer 12379", want: `--listen-peer: "12379" is not of the form host:port`},
		{name: "bad listen-health", args: "--listen-health x:y", want: `--listen-health: "y" is not a port`},
		{name: "API and peers on one port", args: "--port 12379", want: "--port: 127.0.0.1:12379 is taken by listen-peer"},
		{name: "API and health on one port", args: "--listen-health 127.0.0.1:12380", want: "--listen-health: 127.0.0.1:12380 is taken by port"},
		{name: "API and peers on one port of all addresses", args: "--host 0.0.0.0 --port 12379", want: "--port: 0.0.0.0:12379 is taken by listen-peer"},
		{name: "API and gRPC on one port of all addresses", args: "--host localhost --listen-grpc :12380", want: "--listen-grpc: :12380 is taken by port"},
		{name: "advertise-client is no address", args: "--advertise-client http://0.0.0.0:12380", want: `--advertise-client: "0.0.0.0:12380" is every address`},
		{name: "advertise-client is no IPv6 address", args: "--advertise-client http://[::]/", want: `--advertise-client: "[::]" is every address`},
		{name: "advertise-client without a port that exists", args: "--advertise-client http://chat.example:0", want: "--advertise-client: "},
		{name: "advertise-grpc is no address", args: "--advertise-grpc 0.0.0.0:9000", want: `--advertise-grpc: "0.0.0.0:9000" is every address`},
		{name: "advertise-grpc without a host", args: "--advertise-grpc :9000", want: `--advertise-grpc: ":9000" is every address`},
		{name: "raftogram grpc_addr is no address", args: "--config config.yaml", file: replace(`grpc_addr: "127.0.0.1:9001"`, `grpc_addr: "0.0.0.0:9001"`), want: `config.yaml: cluster.peers[1].grpc_addr: "0.0.0.0:9001" is every address`},
		{name: "bad advertise-client", args: "--advertise-client chat.example", want: "--advertise-client"},
		{name: "bad advertise-grpc", args: "--advertise-grpc chat.example", want: "--advertise-grpc"},
		{name: "bad origin", args: "--allowed-origins https://a.example/path", want: "--allowed-origins"},
		{name: "host with a port", args: "--allowed-hosts a.example:443", want: "--allowed-hosts"},
		{name: "host that is a URL", args: "--allowed-hosts a.example,https://b.example", want: "--allowed-hosts"},
		{name: "long name", args: "--name " + strings.Repeat("x", 129), want: "--name: is 129 bytes long"},
		{name: "zero timeout", args: "--write-timeout 0s", want: "--write-timeout: must be more than 0"},
		{name: "zero size", args: "--max-message-bytes 0", want: "--max-message-bytes: must be more than 0"},
		{name: "negative timeout", args: "--pong-timeout -1s", want: "--pong-timeout: -1s is not between"},
		{name: "too few ticks", args: "--election-ticks 1", want: "--election-ticks: 1 is not between 3 and 1000"},
		{name: "still too few ticks", args: "--election-ticks 2", want: "--election-ticks: 2 is not between 3 and 1000"},
		{name: "an id that raft keeps", args: "--id 18446744073709551615 --cluster 18446744073709551615=http://127.0.0.1:1", want: "--id: 18446744073709551615 is not a node id: raft keeps"},
		{name: "the other id that raft keeps", args: "--id 18446744073709551614", want: "--id: 18446744073709551614 is not a node id: raft keeps"},
		{name: "an id beyond all", args: "--id 18446744073709551616", want: `--id: "18446744073709551616" is not a whole number`},
		{name: "an id that raft keeps in the list", args: "--cluster 1=http://127.0.0.1:1,18446744073709551614=http://127.0.0.1:2,3=http://127.0.0.1:3", want: "--cluster: 18446744073709551614 is not a node id: raft keeps"},
		{name: "nobody to ask", args: "--join", want: "--cluster: lists only this node, but a node that joins has to ask another one"},
		{name: "a size beyond all", args: "--min-free-bytes 8388608TiB", want: "is not a size"},
		{name: "a unit beyond all", args: "--min-free-bytes 8EiB", want: "is not a size"},
		{name: "a duration beyond all", args: "--request-timeout 999999999h", want: `--request-timeout: "999999999h" is not a duration`},
		{name: "too much log kept", args: "--catch-up-bytes 8388607TiB", want: "--catch-up-bytes: 9223370937343148032 is not between 1 MiB and 1 TiB"},
		{name: "too little log kept", args: "--catch-up-bytes 1023KiB", want: "--catch-up-bytes: 1047552 is not between 1 MiB and 1 TiB"},
		{name: "body too small for a message", args: "--max-body-bytes 1KiB", want: "--max-body-bytes: 1024 is less than the 409600 that a message of max-message-bytes (65536) can take"},
		{name: "body too small for long messages", args: "--max-message-bytes 512KiB --max-body-bytes 1MiB", want: "--max-body-bytes: 1048576 is less than the 3162112"},
		{name: "message too large", args: "--max-message-bytes 17MiB", want: "--max-message-bytes: 17825792 is not between 1 and 16777216 (16 MiB)"},
		{name: "messages too long for the budget", args: "--max-message-bytes 4MiB --memory-budget 64MiB", want: "--max-message-bytes: a message of 4194304 bytes can take 25182208 as JSON, more than the 13421760 that memory-budget (67108864) leaves"},
		{name: "name that does not show", args: "--name n\u200b", want: "--name: must not hold U+200B ZERO WIDTH SPACE (character 2)"},
		{name: "a budget too small to serve", args: "--memory-budget 31MiB", want: "--memory-budget: 32505856 is less than 32 MiB"},
		{name: "no budget at all", args: "--memory-budget 0", want: "--memory-budget: must be more than 0"},
		{name: "a budget above the machine", args: "--memory-budget 1000TiB", want: "bytes that this process may use at all"},
		{name: "body too large", args: "--max-body-bytes 1GiB", want: "--max-body-bytes"},

		{name: "bad variable", env: []string{"RAFT_CHAT_PORT=abc"}, want: `RAFT_CHAT_PORT: "abc" is not a port`},
		{name: "bad variable that is no service link", env: []string{"RAFT_CHAT_PORT=http://10.0.0.1:12380"}, want: `RAFT_CHAT_PORT: "http://10.0.0.1:12380" is not a port`},
		{name: "bad variable over a good file", args: "--config config.yaml", env: []string{"RAFT_CHAT_PORT=abc"}, file: "port: 7\n", want: `RAFT_CHAT_PORT: "abc" is not a port`},
		{name: "service link of another setting", env: []string{"RAFT_CHAT_CLUSTER=tcp://10.0.0.1:12379"}, want: "RAFT_CHAT_CLUSTER: peer URL \"tcp://10.0.0.1:12379\": its scheme"},
		{name: "bad bool variable", env: []string{"RAFT_CHAT_DEV=sure"}, want: `RAFT_CHAT_DEV: "sure" is not true or false`},
		{name: "bad cluster by variable", env: []string{"RAFT_CHAT_CLUSTER=x"}, want: `RAFT_CHAT_CLUSTER: peer URL "x": it has no scheme`},

		{name: "no file", args: "--config absent.yaml", want: "--config: open absent.yaml: no such file"},
		{name: "no file by variable", env: []string{"RAFTOGRAM_CONFIG=absent.yaml"}, want: "RAFTOGRAM_CONFIG: open absent.yaml"},
		{name: "file is a directory", args: "--config .", want: "is a directory"},
		{name: "unknown key", args: "--config config.yaml", file: "port: 1\ndata_dri: x\n", want: "config.yaml:2: unknown key data_dri; did you mean data_dir?"},
		{name: "key with a dash", args: "--config config.yaml", file: "data-dir: x\n", want: "unknown key data-dir; did you mean data_dir?"},
		{name: "config in the file", args: "--config config.yaml", file: "config: x\n", want: "unknown key config"},
		{name: "help in the file", args: "--config config.yaml", file: "help: true\n", want: "unknown key help"},
		{name: "unknown key that a flag would hide", args: "--config config.yaml --port 1", file: "prot: 1\n", want: "unknown key prot"},
		{name: "bad value", args: "--config config.yaml", file: "\nport: http\n", want: `config.yaml:2: port: "http" is not a port`},
		{name: "bad id in the file", args: "--config config.yaml", file: "id: 9\n", want: "config.yaml:1: id: 9 is not in the cluster list"},
		{name: "key twice", args: "--config config.yaml", file: "port: 1\nport: 2\n", want: "config.yaml:2: port is there twice"},
		{name: "no value", args: "--config config.yaml", file: "data_dir:\n", want: "config.yaml:1: data_dir: has no value"},
		{name: "empty value", args: "--config config.yaml", file: "data_dir: ''\n", want: "config.yaml:1: data_dir: is empty"},
		{name: "list for one value", args: "--config config.yaml", file: "port: [1, 2]\n", want: "port: takes one value, not a list"},
		{name: "list of one for one value is fine but not of none", args: "--config config.yaml", file: "cluster: []\n", want: "cluster: the list is empty"},
		{name: "mapping for a value", args: "--config config.yaml", file: "port: {a: 1}\n", want: "port: is not a single value"},
		{name: "nested list", args: "--config config.yaml", file: "cluster: [[a]]\n", want: "cluster: is not a single value"},
		{name: "not a mapping", args: "--config config.yaml", file: "- port\n", want: "the file: is not a mapping"},
		{name: "complex key", args: "--config config.yaml", file: "[a]: 1\n", want: "a key is not a plain word"},
		{name: "bad YAML", args: "--config config.yaml", file: "port: [1\n", want: "--config: config.yaml: line"},
		{name: "two documents", args: "--config config.yaml", file: "port: 1\n---\nport: 2\n", want: "more than one document"},
		{name: "large file", args: "--config config.yaml", file: strings.Repeat("#\n", 600_000), want: "is larger than"},

		{name: "raftogram without node_id", args: "--config config.yaml", file: without("  node_id: \"node2\"\n"), want: "cluster.node_id is missing"},
		{name: "raftogram without raft_bind_addr", args: "--config config.yaml", file: without("  raft_bind_addr: \"127.0.0.1:7001\"\n"), want: "cluster.raft_bind_addr is missing"},
		{name: "raftogram without grpc_bind_addr", args: "--config config.yaml", file: without("  grpc_bind_addr: \"127.0.0.1:9001\"\n"), want: "cluster.grpc_bind_addr is missing"},
		{name: "raftogram without health_bind_addr", args: "--config config.yaml", file: without("  health_bind_addr: \"127.0.0.1:8081\"\n"), want: "cluster.health_bind_addr is missing"},
		{name: "raftogram without data_dir", args: "--config config.yaml", file: without("  data_dir: \"./data/node2\"\n"), want: "cluster.data_dir is missing"},
		{name: "raftogram without peers", args: "--config config.yaml", file: raftogramFile[:strings.Index(raftogramFile, "  peers:")], want: "cluster.peers is missing"},
		{name: "raftogram peers not a list", args: "--config config.yaml", file: raftogramFile[:strings.Index(raftogramFile, "  peers:")] + "  peers: 3\n", want: "cluster.peers: is not a list"},
		{name: "raftogram without peers in the list", args: "--config config.yaml", file: raftogramFile[:strings.Index(raftogramFile, "  peers:")] + "  peers: []\n", want: "cluster.node_id: \"node2\" is not the node_id of any of the peers"},
		{name: "raftogram peer without raft_addr", args: "--config config.yaml", file: without("raft_addr: \"127.0.0.1:7001\", "), want: "cluster.peers[1].raft_addr is missing"},
		{name: "raftogram peer without grpc_addr", args: "--config config.yaml", file: without(", grpc_addr: \"127.0.0.1:9002\""), want: "cluster.peers[2].grpc_addr is missing"},
		{name: "raftogram peer without node_id", args: "--config config.yaml", file: without("node_id: \"node1\", "), want: "cluster.peers[0].node_id is missing"},
		{name: "raftogram empty value", args: "--config config.yaml", file: replace(`"./data/node2"`, `""`), want: "cluster.data_dir: is empty"},
		{name: "raftogram unknown key", args: "--config config.yaml", file: replace("node_id: \"node2\"\n", "node_id: \"node2\"\n  zone: b\n"), want: "config.yaml:3: unknown key cluster.zone"},
		{name: "raftogram unknown peer key", args: "--config config.yaml", file: replace("{node_id: \"node3\"", "{zone: b, node_id: \"node3\""), want: "unknown key cluster.peers[2].zone"},
		{name: "raftogram bad raft_addr", args: "--config config.yaml", file: replace(`raft_addr: "127.0.0.1:7002"`, `raft_addr: "7002"`), want: "cluster.peers[2].raft_addr: \"7002\" is not of the form host:port"},
		{name: "raftogram bad grpc_bind_addr", args: "--config config.yaml", file: replace(`grpc_bind_addr: "127.0.0.1:9001"`, `grpc_bind_addr: x`), want: "cluster.grpc_bind_addr: \"x\" is not"},
		{name: "raftogram bad health_bind_addr", args: "--config config.yaml", file: replace(`"127.0.0.1:8081"`, `x`), want: "config.yaml: cluster.health_bind_addr: \"x\" is not of the form host:port"},
		{name: "raftogram stranger", args: "--config config.yaml", file: replace(`node_id: "node2"`, `node_id: "node9"`), want: "cluster.node_id: \"node9\" is not the node_id of any of the peers"},
		{name: "raftogram name twice", args: "--config config.yaml", file: replace(`{node_id: "node3"`, `{node_id: "node1"`), want: "cluster.peers: \"node1\" is the name of both node 1 and node 3"},
		{name: "raftogram address twice", args: "--config config.yaml", file: replace(`raft_addr: "127.0.0.1:7002"`, `raft_addr: "127.0.0.1:7000"`), want: "cluster.peers: http://127.0.0.1:7000 is the URL of both"},
		{name: "raftogram even", args: "--config config.yaml", file: without("    - {node_id: \"node3\", raft_addr: \"127.0.0.1:7002\", grpc_addr: \"127.0.0.1:9002\"}\n"), want: "config.yaml: cluster.peers: lists 2 voters"},
		{name: "raftogram elsewhere", args: "--config config.yaml", file: replace(`raft_bind_addr: "127.0.0.1:7001"`, `raft_bind_addr: "0.0.0.0:7001"`), want: "cluster.raft_bind_addr: 0.0.0.0:7001 is not a loopback address"},
		{name: "raftogram with an id", args: "--config config.yaml --id 1", file: raftogramFile, want: "--id: cannot be combined with the cluster mapping of config.yaml"},
		{name: "raftogram with a cluster", args: "--config config.yaml", env: []string{"RAFT_CHAT_CLUSTER=" + threeNodes}, file: raftogramFile, want: "RAFT_CHAT_CLUSTER: cannot be combined"},
		{name: "raftogram cluster twice", args: "--config config.yaml", file: raftogramFile + "cluster: " + threeNodes + "\n", want: "cluster is there twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				write(t, dir, "config.yaml", tt.file)
			}
			wantUsageError(t, invoke(t, dir, strings.Fields(tt.args), tt.env...), tt.want)
		})
	}
}

// An even number is a legal stage of a cluster that grows, so only a directory
// without a node's data makes it a mistake.
func TestEvenClusterAfterTheFirstStart(t *testing.T) {
	args := []string{"--data-dir", "d", "--cluster", "http://127.0.0.1:1,http://127.0.0.1:2"}
	dir := t.TempDir()
	for _, sub := range []string{"d", "d/lost+found"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
		wantUsageError(t, invoke(t, dir, args), "lists 2 voters")
	}
	write(t, filepath.Join(dir, "d"), "wal", "")
	if got := invoke(t, dir, args); got.code != exitOK {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	write(t, dir, "f", "")
	args[1] = "f"
	wantUsageError(t, invoke(t, dir, args), "--data-dir: open f: not a directory")
}

func TestValidateLeavesTheCallersListAlone(t *testing.T) {
	c := server.Config{ID: 1, Cluster: []server.Peer{{ID: 1, URL: "http://LOCALHOST:1/"}}}
	list := c.Cluster
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if list[0].URL != "http://LOCALHOST:1/" || c.Cluster[0].URL != "http://localhost:1" {
		t.Errorf("caller has %q, the configuration %q", list[0].URL, c.Cluster[0].URL)
	}
	want := withDefaults(func(c *server.Config) {
		c.Cluster[0].URL, c.ListenPeer = "http://localhost:1", "localhost:1"
	})
	if diff := cmp.Diff(want, c, cmpopts.IgnoreFields(server.Config{}, "Logger", "Version")); diff != "" {
		t.Errorf("defaults of the server differ from those of the flags (- flags, + server):\n%s", diff)
	}
	if c.Logger == nil || c.Logger.Enabled(t.Context(), slog.LevelError) {
		t.Error("the default logger is not a silent one")
	}
}

// A zero is refused, or means off and help says so; it never means the default.
func TestZeroIsNeverTheDefault(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	defaultSettings().register(fs)
	for _, f := range allFlags(fs) {
		if !slices.Contains([]string{"duration", "size", "int", "uint64", "port"}, f.Value.Type()) {
			continue
		}
		for where, got := range map[string]outcome{
			"--" + f.Name:   invoke(t, "", []string{"--" + f.Name, "0"}),
			envName(f.Name): invoke(t, "", nil, envName(f.Name)+"=0"),
		} {
			if off := strings.Contains(f.Usage, "; 0 "); off != (got.code == exitOK) || !off && !strings.HasPrefix(got.stderr, "raft-chat: "+where+": ") {
				t.Errorf("%s = 0: exit code %d, %s", where, got.code, got.stderr)
			}
		}
	}
}

func allFlags(fs *pflag.FlagSet) []*pflag.Flag {
	var flags []*pflag.Flag
	fs.VisitAll(func(f *pflag.Flag) { flags = append(flags, f) })
	return flags
}

// Each setting is a flag, a variable and a key: the three names are made from
// one, so no two settings may have the same.
func TestSettingNames(t *testing.T) {
	seen := map[string]string{}
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	defaultSettings().register(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		v := envName(f.Name)
		if other, taken := seen[v]; taken {
			t.Errorf("%s and %s share %s", other, f.Name, v)
		}
		seen[v] = f.Name
		if strings.ToLower(f.Name) != f.Name || f.Usage == "" || f.Shorthand != "" {
			t.Errorf("flag %+v", f)
		}
	})
	if len(seen) < 25 {
		t.Errorf("only %d settings", len(seen))
	}
}

// The template that people copy must work as it is and describe this layout.
func TestConfigTemplate(t *testing.T) {
	template, err := os.ReadFile("../../config.yaml.dist")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "config.node1.yaml", string(template))
	got := invoke(t, dir, []string{"-config", "config.node1.yaml"})
	if got.code != exitOK || got.config == nil {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	c := got.config
	if c.ID != 1 || c.Name != "node1" || len(c.Cluster) != 3 || c.Listen != "127.0.0.1:8080" || c.ListenPeer != "127.0.0.1:7000" || c.DataDir != "./data/node1" {
		t.Errorf("configuration: %+v", c)
	}
	// Every setting is listed in the template's comments, with its default.
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	defaultSettings().register(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		switch f.Name {
		case "config", "id", "cluster", "name", "join", "data-dir", "listen-peer": // said by the mapping, or not for a file
			return
		}
		line := "\n# " + key + ":"
		if d := f.DefValue; d != "" {
			line += " " + d
		}
		if !strings.Contains(string(template), line) {
			t.Errorf("the template has no line %q", line)
		}
	})
}

func FuzzParseConfigFile(f *testing.F) {
	f.Add([]byte(raftogramFile))
	f.Add([]byte("port: 7\ncluster: [a, b]\n"))
	f.Add([]byte("a: &x 1\nb: *x\n<<: *x\n"))
	f.Add([]byte("--- !!map\n? [a]\n: b\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseConfigFile("f.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Errorf("error %q does not begin with the file", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, e := range file.entries {
			if seen[e.key] || len(e.values) == 0 {
				t.Errorf("entry %+v", e)
			}
			seen[e.key] = true
		}
		if l := file.raftogram; l != nil {
			if l.nodeID == "" || l.raftBind == "" || l.grpcBind == "" || l.health == "" || l.dataDir == "" {
				t.Errorf("layout with a hole: %+v", l)
			}
		}
	})
}
