package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// doubleDashes returns args with long flags that have one dash (-config) given
// their second one. One letter keeps its dash, and its value stands apart or is a
// number (-h, -o json, -n5); values of flags and everything after "--" stay as they are.
func doubleDashes(root *cobra.Command, args []string) []string {
	out := make([]string, 0, len(args))
	isValue := false
	for i, arg := range args {
		if arg == "--" && !isValue {
			return append(out, args[i:]...)
		}
		if isValue || !strings.HasPrefix(arg, "-") {
			isValue = false
			out = append(out, arg)
			continue
		}
		name := strings.TrimLeft(arg, "-")
		if dashes := len(arg) - len(name); dashes == 1 && len(name) > 1 && strings.Trim(name[1:], "0123456789") != "" {
			arg = "-" + arg
		}
		// A flag may be known to any of the commands; those that share a name
		// agree in whether it takes a value.
		isValue = !strings.Contains(name, "=") && takesValue(root, name)
		out = append(out, arg)
	}
	return out
}

// takesValue reports whether some command has a flag of that name whose value
// is the argument that follows it.
func takesValue(cmd *cobra.Command, name string) bool {
	if f := cmd.Flags().Lookup(name); f != nil {
		return needsValue(f)
	}
	for _, sub := range cmd.Commands() {
		if takesValue(sub, name) {
			return true
		}
	}
	return false
}

func needsValue(f *pflag.Flag) bool { return f.NoOptDefVal == "" }
