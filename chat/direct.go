package chat

import "time"

// What follows lets a caller bring commands into a log without a Service, whose
// waits need goroutines: a simulation steps everything by itself.

// EncodePosts validates posts as Service.Post does and gives them as one log
// entry that is dated at.
func EncodePosts(at time.Time, posts ...PostRequest) ([]byte, error) {
	entry := appendHeader(nil, at.UnixMicro())
	for i := range posts {
		c, err := validatePost(&posts[i], MaxMessage)
		if err != nil {
			return nil, err
		}
		entry = append(entry, c.encode()...)
	}
	return entry, nil
}

// EncodeTrim is Service.Trim's first step as a log entry that is dated at.
func EncodeTrim(at time.Time, room string, below uint64) ([]byte, error) {
	c, err := validateTrim(room, below)
	if err != nil {
		return nil, err
	}
	return append(appendHeader(nil, at.UnixMicro()), c.encode()...), nil
}

// Posted is what Service.Post returns.
type Posted struct {
	Message      *Message
	Deduplicated bool
	Err          error
}

// DecodePosts gives the outcomes of the posts of an entry, from what Store.Apply
// gave for it.
func DecodePosts(result any) []Posted {
	results, _ := result.([]commandResult)
	out := make([]Posted, len(results))
	for i := range results {
		out[i].Message, out[i].Deduplicated, out[i].Err = results[i].posted()
	}
	return out
}
