package workload_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// A node that applies something while it is read, or cannot answer for a
// moment, is read again; what it stores is read to the last page.
func TestCollectReadsOneState(t *testing.T) {
	var reads []string
	applied := 5
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads = append(reads, r.URL.Path+"?"+r.URL.RawQuery)
		message := func(room string, seq, id int) string {
			return fmt.Sprintf(`{"Room":%q,"Seq":%d,"ID":%d,"User":"ann","Message":"m","ClientMessageID":"c%d","PostedAt":"1970-01-01T00:00:01Z"}`, room, seq, id, id)
		}
		q := r.URL.Query()
		if r.URL.Path != "/health" && q.Get("consistency") != "stale" {
			t.Errorf("%s asks other nodes as well", r.URL)
		}
		switch {
		case len(reads) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/health":
			fmt.Fprintf(w, `{"node_id":"one","applied_index":%d,"state_hash":"00000000000000%02x"}`, applied, applied)
		case r.URL.Path == "/rooms" && q.Get("after") == "":
			applied = min(applied+1, 6) // once
			fmt.Fprint(w, `["a","b"]`)
		case r.URL.Path == "/rooms/a" && q.Get("after") == "0":
			fmt.Fprint(w, "["+message("a", 1, 1)+"]")
		case r.URL.Path == "/rooms/a" && q.Get("after") == "1":
			fmt.Fprint(w, "["+message("a", 2, 3)+"]")
		case r.URL.Path == "/rooms/b" && q.Get("after") == "0":
			fmt.Fprint(w, "["+message("b", 1, 2)+"]")
		default:
			fmt.Fprint(w, "[]")
		}
	}))
	defer node.Close()
	replicas, err := testcluster.NewClient(t).Collect(t.Context(), []string{node.URL})
	if err != nil || len(replicas) != 1 {
		t.Fatalf("%+v, %v", replicas, err)
	}
	r := replicas[0]
	message := func(room string, seq, id uint64) oracle.Message {
		return oracle.Message{Room: room, Seq: seq, ID: id, User: "ann", Body: "m", ClientID: fmt.Sprint("c", id), PostedUS: 1e6}
	}
	want := []oracle.Message{message("a", 1, 1), message("a", 2, 3), message("b", 1, 2)}
	if r.Name != "one" || r.Applied != 6 || r.Hash != 6 || !slices.Equal(r.Messages, want) {
		t.Errorf("collected %+v from\n%s", r, strings.Join(reads, "\n"))
	}
}
