package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
)

// The types below are flag values (pflag.Value). Type is what help shows for
// the value and what decides how an error describes the right form.

// portValue is a TCP port, 0 to 65535.
type portValue uint16

func (v *portValue) String() string { return strconv.Itoa(int(*v)) }
func (v *portValue) Type() string   { return "port" }

// Set accepts a decimal port.
func (v *portValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("not a port")
	}
	*v = portValue(n)
	return nil
}

// followerValue says whether a follower serves gRPC calls itself.
type followerValue bool

func (v *followerValue) Type() string { return "mode" }

func (v *followerValue) String() string {
	if *v {
		return "forward"
	}
	return "redirect"
}

// Set accepts redirect and forward.
func (v *followerValue) Set(s string) error {
	if s != "redirect" && s != "forward" {
		return errors.New("neither redirect nor forward")
	}
	*v = s == "forward"
	return nil
}

// sizeValue is a number of bytes, 0 or more.
type sizeValue int64

func (v *sizeValue) Type() string { return "size" }

// String writes the size with the largest unit that divides it.
func (v *sizeValue) String() string {
	n := int64(*v)
	for _, u := range sizeUnits() {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Set accepts a whole number of bytes or one with a unit: KiB, MiB, GiB or TiB.
func (v *sizeValue) Set(s string) error {
	digits, factor := strings.TrimSpace(s), int64(1)
	for _, u := range sizeUnits() {
		if cut, found := strings.CutSuffix(strings.ToLower(digits), strings.ToLower(u.name)); found {
			digits, factor = strings.TrimSpace(cut), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/factor {
		return errors.New("not a size")
	}
	*v = sizeValue(int64(n) * factor)
	return nil
}

type sizeUnit struct {
	name  string
	bytes int64
}

func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// levelValue is the least severe level that is logged.
type levelValue slog.Level

func (v *levelValue) String() string { return strings.ToLower(slog.Level(*v).String()) }
func (v *levelValue) Type() string   { return "level" }

// Set accepts debug, info, warn or error.
func (v *levelValue) Set(s string) error {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, l.String()) {
			*v = levelValue(l)
			return nil
		}
	}
	return errors.New("not a level")
}

// listValue is a list of words without commas. Each Set adds to it, so that a
// flag may be repeated.
type listValue []string

func (v *listValue) String() string { return strings.Join(*v, ",") }
func (v *listValue) Type() string   { return "list" }

// Set adds the words in s, which commas separate. An empty word is an error:
// where a position has a meaning, passing over it would shift the others.
func (v *listValue) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			return errors.New("an entry is empty")
		}
		*v = append(*v, word)
	}
	return nil
}

// valueError says that value is not of the form that a flag of the given type
// takes. where names the place the value came from.
func valueError(where, value, flagType string) error {
	form, known := map[string]string{
		"port":     "a port between 0 and 65535",
		"size":     "a size in bytes such as 65536, 64KiB or 512MiB",
		"level":    "debug, info, warn or error",
		"duration": "a duration such as 500ms, 10s or 1m30s",
		"bool":     "true or false",
		"list":     "a list of entries with a comma between them, none of them empty",
		"int":      "a whole number",
		"uint64":   "a whole number, 0 or more",
	}[flagType]
	if !known {
		form = "a " + flagType
	}
	return fmt.Errorf("%s: %q is not %s", where, value, form)
}
