package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

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
			return nil, nil, usageErrorf("%s:%d: unknown key %s%s", path, entry.line, entry.key, didYouMean(entry.key, keys(names)))
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

// keys returns the keys that the settings have in a file.
func keys(names []string) []string {
	out := []string{"cluster"}
	for _, name := range names {
		if name != "config" {
			out = append(out, strings.ReplaceAll(name, "-", "_"))
		}
	}
	return out
}

// variables returns the environment variables that a flag listens to, the
// stronger one first.
func variables(flag string) []string {
	switch flag {
	case "config":
		return []string{envName(flag), raftogramPrefix + "CONFIG"}
	case "dev":
		return []string{envName(flag), raftogramPrefix + "DEV"}
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
		var flags []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				flags = append(flags, "--"+f.Name)
			}
		})
		name := "--" + unknown.GetSpecifiedName()
		return usageErrorf("unknown flag %s (see %s --help)%s", name, cmd.CommandPath(), didYouMean(name, flags))
	}
	return &usageError{err}
}
