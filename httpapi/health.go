package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
)

// getHealth is GET /health: always 200, with the fields of raftogram and what the state here is. The leader's are left out
// while none is known.
func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) *problem {
	status := s.options.Cluster.Status()
	b := append([]byte(nil), `{"node_id":`...)
	b = appendString(b, nameOf(status.Name, status.NodeID))
	b = append(b, `,"role":`...)
	b = appendString(b, status.Role)
	b = append(b, `,"is_leader":`...)
	b = strconv.AppendBool(b, status.Role == "leader")
	if status.LeaderID != 0 {
		for _, field := range [...]struct{ key, value string }{
			{"leader_id", nameOf(status.LeaderName, status.LeaderID)},
			{"leader_raft_addr", status.LeaderPeerAddr},
			{"leader_grpc_addr", status.LeaderGRPCAddr},
		} {
			if field.value != "" {
				b = append(b, `,"`+field.key+`":`...)
				b = appendString(b, field.value)
			}
		}
	}
	index, hash := s.options.Chat.StateHash()
	b = append(b, `,"applied_index":`...)
	b = strconv.AppendUint(b, index, 10)
	// A number of JSON that large would not survive every reader.
	b = fmt.Appendf(b, `,"state_hash":"%016x"`, hash)
	if status.Alarm != "" {
		b = append(b, `,"alarm":`...)
		b = appendString(b, status.Alarm)
	}
	s.writeJSON(w, append(b, "}\n"...))
	return nil
}

// nameOf is a member's name, or its id where it has none.
func nameOf(name string, id uint64) string {
	if name == "" {
		return strconv.FormatUint(id, 10)
	}
	return name
}

// getLive is GET /livez: 200 while the process serves.
func (s *Server) getLive(w http.ResponseWriter, _ *http.Request) *problem {
	s.writeOK(w)
	return nil
}

// getReady is GET /readyz: 200, or 503 with the failing check in the detail. With ?sync it first waits until this node
// has applied everything that was committed when it was asked.
func (s *Server) getReady(w http.ResponseWriter, r *http.Request) *problem {
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	err := s.options.Cluster.Ready(ctx)
	if err == nil && q.flag("sync") {
		err = s.options.Cluster.Sync(ctx)
	}
	if err != nil {
		return newProblem(codeNotReady, err.Error())
	}
	s.writeOK(w)
	return nil
}

// writeOK answers 200 with the word that probes look for.
func (s *Server) writeOK(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h["Cache-Control"] = s.headers.noStore
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte("ok\n"))
}
