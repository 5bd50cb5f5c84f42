package chat

import (
	"context"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// settingsCommand is chatpb.Settings.
type settingsCommand struct{ dedupWindowUS int64 }

// encode gives c as a field "commands" of chatpb.Batch.
func (c *settingsCommand) encode() []byte {
	return encodeNumber(fieldSettings, fieldSettingsDedupWindowUS, c.dedupWindowUS)
}

// encodeNumber encodes a command of one number.
func encodeNumber(kind, field protowire.Number, v int64) []byte {
	if v == 0 {
		return newCommand(kind, 0) // as proto3 does
	}
	b := newCommand(kind, 1+uvarintLen(uint64(v)))
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

func (s *scanner) settings(in span, c *command) {
	for in.len() > 0 && s.err == nil {
		num, typ := s.tag(&in)
		if num != fieldSettingsDedupWindowUS || typ != protowire.VarintType {
			s.unknown("settings", num, typ)
			continue
		}
		c.settings.dedupWindowUS = int64(s.varint(&in))
	}
}

// decideSettings is the whole rule of settings. It is pure.
func decideSettings(c *settingsCommand) (s settings, code Code) {
	if !windowAllowed(c.dedupWindowUS) {
		return s, CodeLimitInvalid
	}
	return settings{dedupWindow: time.Duration(c.dedupWindowUS) * time.Microsecond}, ""
}

// settings applies one change of the settings.
func (a *applier) settings(cmd *command) (res commandResult, err error) {
	var s settings
	res.code = CodeCommandFailed
	a.guard(cmd, func() { s, res.code = decideSettings(&cmd.settings) })
	if res.code != "" {
		return res, nil
	}
	a.scratch = s.append(a.scratch[:0])
	a.effect(effectSettings, settingsKey(), a.scratch)
	return res, a.batch.Set(settingsKey(), a.scratch, nil)
}

// SetDedupWindow sets for how long after its post the client message id of a
// message is remembered at least, on every node and also when the message was
// dropped: DefaultDedupWindow to MaxDedupWindow, in whole microseconds. The error
// is CodeLimitInvalid for anything else.
func (s *Service) SetDedupWindow(ctx context.Context, _ Actor, window time.Duration) error {
	c := settingsCommand{dedupWindowUS: window.Microseconds()}
	if _, code := decideSettings(&c); code != "" {
		return fail(code, "the dedup window must be an hour to a year")
	}
	res, err := s.propose(ctx, c.encode(), true, false)
	if err == nil && res.code != "" {
		err = rejected(res.code)
	}
	return err
}
