package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	envPrefix       = "RAFT_CHAT_"
	raftogramPrefix = "RAFTOGRAM_"
)

// environment holds the variables of the process that are set and not empty.
type environment map[string]string

// parseEnvironment reads the form of os.Environ. An empty variable counts as
// not set, because many process managers cannot take one away.
func parseEnvironment(list []string) environment {
	env := make(environment, len(list))
	for _, entry := range list {
		if name, value, found := strings.Cut(entry, "="); found && value != "" {
			env[name] = value
		}
	}
	return env
}

// envName returns the environment variable of a flag: RAFT_CHAT_DATA_DIR for
// data-dir.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// hookVariables are the names, without envPrefix, of what tail --exec tells a
// command about a message. Only ID is also that of a setting; its value then is
// that of MESSAGE_ID as well.
func hookVariables() []string {
	return []string{"ROOM", "USER", "MESSAGE", "RAW", "ID", "MESSAGE_ID", "SEQ", "TIME"}
}

// settings returns what of env is meant for a node that has the named settings,
// and one sentence on each variable that looks as if it was and is not: others
// make variables with our prefix too, and none of them may steer a node.
func (env environment) settings(names []string) (meant environment, notes []string) {
	var ours []string
	for _, name := range names {
		ours = append(ours, variables(name)...)
	}
	known := append(slices.Clone(ours), envName("endpoints"))
	for _, name := range hookVariables() {
		known = append(known, envPrefix+name)
	}
	made := madeByOthers()
	meant = maps.Clone(env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		switch {
		case !strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, raftogramPrefix):
		case !slices.Contains(known, name):
			if !made.MatchString(name) && !isServiceLink(name, value) {
				notes = append(notes, fmt.Sprintf("%s is not a setting and has no effect%s", name, didYouMean(name, ours)))
			}
		case isServiceLink(name, value):
			delete(meant, name)
			notes = append(notes, fmt.Sprintf("%s=%s is passed over: that is how Kubernetes and Docker tell of a service of this name; enableServiceLinks: false keeps such variables away", name, value))
		case name == envName("id") && value == env[envName("message-id")]:
			delete(meant, name)
			notes = append(notes, name+" is passed over: it is the id of the message that tail --exec ran a command for; --id gives the id of a node")
		}
	}
	return meant, notes
}

// madeByOthers matches the variables that Kubernetes (for a Service) and Docker
// (for a link) make of a name that begins like ours, and that never are settings.
func madeByOthers() *regexp.Regexp {
	return regexp.MustCompile(`^(RAFT_CHAT|RAFTOGRAM)(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|ENV_.+)$`)
}

// isServiceLink reports whether a variable whose name may be a setting's has a
// value that Kubernetes or Docker gave it: NAME_PORT=tcp://10.0.0.1:80, and
// NAME_NAME=/container/alias.
func isServiceLink(name, value string) bool {
	switch {
	case strings.HasSuffix(name, "_PORT"):
		scheme, rest, found := strings.Cut(value, "://")
		return found && rest != "" && slices.Contains([]string{"tcp", "udp", "sctp"}, scheme)
	case strings.HasSuffix(name, "_NAME"):
		return strings.HasPrefix(value, "/") && strings.Count(value, "/") == 2
	}
	return false
}
