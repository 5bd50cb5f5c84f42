package chat

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// purgeCommand is chatpb.Purge.
type purgeCommand struct{ beforeUS int64 }

// encode gives c as a field "commands" of chatpb.Batch.
func (c *purgeCommand) encode() []byte {
	return encodeNumber(fieldPurge, fieldPurgeBeforeUS, c.beforeUS)
}

func (s *scanner) purge(in span, c *command) {
	for in.len() > 0 && s.err == nil {
		num, typ := s.tag(&in)
		if num != fieldPurgeBeforeUS || typ != protowire.VarintType {
			s.unknown("purge", num, typ)
			continue
		}
		c.purge.beforeUS = int64(s.varint(&in))
	}
}

// maxPurge bounds what one command forgets. It is part of the command's meaning:
// replicas must agree on it.
const maxPurge = 4096

// decidePurge gives the time before which posts are forgotten. It is pure.
func decidePurge(c *purgeCommand, nowUS int64, s settings) int64 {
	return min(c.beforeUS, nowUS-s.dedupWindow.Microseconds())
}

// purge applies one purge.
func (a *applier) purge(cmd *command) (res commandResult, err error) {
	if err := a.indexBatch(); err != nil {
		return res, err
	}
	s, err := readSettings(a.batch)
	if err != nil {
		return res, err
	}
	before, decided := int64(0), false
	a.guard(cmd, func() { before, decided = decidePurge(&cmd.purge, a.postedUS, s), true })
	if !decided {
		res.code = CodeCommandFailed
		return res, nil
	}
	res.purged, err = a.forget(before)
	return res, err
}

// forget takes away the client message ids of dropped messages that were posted
// before a time, at most maxPurge.
func (a *applier) forget(beforeUS int64) (n int, err error) {
	it, err := a.batch.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixForget}, UpperBound: []byte{prefixForget + 1}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	end := uint64(0)
	for ok := it.First(); ok && n < maxPurge; ok = it.Next() {
		key := it.Key()
		if len(key) != idKeyLen {
			return 0, badRecord("forgettable id")
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return 0, err
		}
		f, err := decodeForgettable(value)
		if err != nil {
			return 0, err
		}
		if f.postedUS >= beforeUS {
			break
		}
		clientID := string(f.clientID)
		a.key = appendDedupKey(a.key[:0], f.room, clientID)
		if err := a.batch.Delete(a.key, nil); err != nil {
			return 0, err
		}
		a.priors[dedupKey{f.room, clientID}] = dedupRecord{}
		end = binary.BigEndian.Uint64(key[1:]) + 1
		n++
	}
	if err := it.Error(); err != nil || n == 0 {
		return 0, err
	}
	from, to := appendForgetKey(nil, 0), appendForgetKey(nil, end)
	a.effect(effectPurge, to, nil)
	return n, a.batch.DeleteRange(from, to, nil)
}

// purge forgets what is older than the dedup window. It is done with trims, which
// alone make something to forget, and what it leaves is left to the next one.
func (s *Service) purge(ctx context.Context) {
	for {
		var window settings
		var oldestUS int64
		some := false
		err := s.store.readAtOnce(func(r pebble.Reader) (err error) {
			if window, err = readSettings(r); err == nil {
				oldestUS, some, err = oldestForgettable(r)
			}
			return err
		})
		c := purgeCommand{beforeUS: s.opt.Now().Add(-window.dedupWindow).UnixMicro()}
		if err != nil || !some || oldestUS >= c.beforeUS {
			return
		}
		if res, err := s.propose(ctx, c.encode(), true, true); err != nil || res.purged < maxPurge {
			return
		}
	}
}
