package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// Collect reads from each node what it stores, without asking the others. It
// tries again while a node cannot answer or applies something meanwhile, until
// ctx ends. Rooms that are aside are not read.
func (c *Client) Collect(ctx context.Context, urls []string, aside ...string) ([]oracle.Replica, error) {
	again := time.NewTicker(retryPause)
	defer again.Stop()
	var all []oracle.Replica
	for _, url := range urls {
		for {
			r, err := c.collect(ctx, url, aside)
			if err == nil {
				all = append(all, r)
				break
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				return nil, fmt.Errorf("collect from %s: %w", url, err)
			}
		}
	}
	return all, nil
}

// collect reads what one node stores.
func (c *Client) collect(ctx context.Context, url string, aside []string) (oracle.Replica, error) {
	before, err := c.Health(ctx, url)
	if err != nil {
		return oracle.Replica{}, err
	}
	const stale = "&consistency=stale"
	rooms, err := c.rooms(ctx, url, stale)
	if err != nil {
		return oracle.Replica{}, err
	}
	r := oracle.Replica{Name: cmp.Or(before.NodeID, url), Applied: before.AppliedIndex}
	for _, room := range rooms {
		if slices.Contains(aside, room) {
			continue
		}
		messages, err := c.messages(ctx, url, room, stale)
		if err != nil {
			return oracle.Replica{}, err
		}
		for _, m := range messages {
			r.Messages = append(r.Messages, m.Oracle())
		}
	}
	after, err := c.Health(ctx, url)
	if err != nil {
		return oracle.Replica{}, err
	}
	if after.AppliedIndex != before.AppliedIndex {
		return oracle.Replica{}, fmt.Errorf("it has applied entry %d meanwhile", after.AppliedIndex)
	}
	if r.Hash, err = strconv.ParseUint(before.StateHash, 16, 64); err != nil {
		return oracle.Replica{}, fmt.Errorf("state hash: %w", err)
	}
	return r, nil
}

// Settle tells the history what the nodes at urls store, once all of them have
// applied the same, waits until the followers have got all of it, and ends
// them. It comes after Stop, and nobody else may write; if Stop gave up, not
// before the cluster has forgotten the requests that were abandoned.
func (w *Workload) Settle(ctx context.Context, urls []string) error {
	w.settling.Store(true)
	again := time.NewTicker(retryPause)
	defer again.Stop()
	var tops map[string]uint64
	for {
		replicas, err := w.client.Collect(ctx, urls, w.o.Aside...)
		if err != nil {
			return err
		}
		if err = differ(replicas); err == nil {
			tops = w.ends(replicas)
			for _, r := range replicas {
				w.o.History.Replica(r)
			}
			break
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
	for {
		var errs []error
		for _, f := range w.followers {
			errs = append(errs, f.lacks(tops))
		}
		err := errors.Join(errs...)
		if err == nil {
			break
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
	w.unfollow()
	w.streams.Wait()
	return nil
}

// differ says which replicas have not applied the same.
func differ(replicas []oracle.Replica) error {
	for _, r := range replicas {
		if r.Applied != replicas[0].Applied {
			return fmt.Errorf("%s has applied entry %d, %s %d", replicas[0].Name, replicas[0].Applied, r.Name, r.Applied)
		}
	}
	return nil
}

// ends gives the Seq at which each room ends: that of its last message, and of a
// room that has none any more the last one that was acknowledged.
func (w *Workload) ends(replicas []oracle.Replica) map[string]uint64 {
	tops := map[string]uint64{}
	for _, r := range replicas {
		for _, m := range r.Messages {
			tops[m.Room] = max(tops[m.Room], m.Seq)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for room, top := range w.tops {
		if tops[room] == 0 {
			tops[room] = top
		}
	}
	return tops
}
