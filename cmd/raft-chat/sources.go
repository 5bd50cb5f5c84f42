package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const envPrefix = "RAFT_CHAT_"

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

// origins says, for every setting that does not have its default, where its
// value came from, in the words an error message can begin with.
type origins map[string]string

// of returns the origin of a setting, or its flag when it has its default.
func (o origins) of(setting string) string {
	if where, set := o[setting]; set {
		return where
	}
	return "--" + setting
}

// given reports whether a setting has another origin than its default.
func (o origins) given(setting string) bool {
	_, set := o[setting]
	return set
}

// resolve completes the parsed flags of fs from the environment and from the
// file, in this order of precedence, and says where each value came from. The
// cluster mapping of a raftogram file, if there is one, is returned unapplied.
func resolve(fs *pflag.FlagSet, names []string, env environment) (origins, *raftogramLayout, error) {
	from := make(origins)
	for _, name := range names {
		f := fs.Lookup(name)
		if f.Changed {
			from[name] = "--" + name
			if f.Value.String() == "" {
				return nil, nil, usageErrorf("--%s: is empty", name)
			}
			continue
		}
		for _, v := range variables(name) {
			value, set := env[v]
			if !set {
				continue
			}
			from[name] = v
			if v == "RAFTOGRAM_DEV" {
				value = "true" // there, any value will do
			}
			if err := f.Value.Set(value); err != nil {
				return nil, nil, &usageError{valueError(v, value, f.Value.Type())}
			}
			break
		}
	}
	path := fs.Lookup("config").Value.String()
	if path == "" {
		return from, nil, nil
	}
	file, err := readConfigFile(path)
	if err != nil {
		return nil, nil, usageErrorf("%s: %w", from.of("config"), err)
	}
	for _, entry := range file.entries {
		name := strings.ReplaceAll(entry.key, "_", "-")
		f := fs.Lookup(name)
		if f == nil || strings.Contains(entry.key, "-") || name == "config" || name == "help" || name == "version" {
			return nil, nil, usageErrorf("%s:%d: unknown key %s", path, entry.line, entry.key)
		}
		where := fmt.Sprintf("%s:%d: %s", path, entry.line, entry.key)
		if len(entry.values) != 1 && f.Value.Type() != "list" {
			return nil, nil, usageErrorf("%s: takes one value, not a list", where)
		}
		if from.given(name) {
			continue
		}
		for _, value := range entry.values {
			if value == "" {
				return nil, nil, usageErrorf("%s: is empty", where)
			}
			if err := f.Value.Set(value); err != nil {
				return nil, nil, &usageError{valueError(where, value, f.Value.Type())}
			}
		}
		from[name] = where
	}
	return from, file.raftogram, nil
}

// variables returns the environment variables that a flag listens to, the
// stronger one first.
func variables(flag string) []string {
	switch flag {
	case "config":
		return []string{envName(flag), "RAFTOGRAM_CONFIG"}
	case "dev":
		return []string{envName(flag), "RAFTOGRAM_DEV"}
	}
	return []string{envName(flag)}
}

// flagError puts what pflag has to say about a command line into one plain
// sentence.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		return &usageError{valueError("--"+f.Name, invalid.GetValue(), f.Value.Type())}
	case errors.As(err, &missing):
		return usageErrorf("--%s: needs a value", missing.GetSpecifiedName())
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usageErrorf("unknown flag -%s (see %s --help)", unknown.GetSpecifiedShortnames(), cmd.CommandPath())
	case errors.As(err, &unknown):
		return usageErrorf("unknown flag --%s (see %s --help)", unknown.GetSpecifiedName(), cmd.CommandPath())
	}
	return &usageError{err}
}
