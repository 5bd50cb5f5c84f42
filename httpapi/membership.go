package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// maxMembershipBody bounds the bodies of membership calls, in bytes.
const maxMembershipBody = 1 << 10

// getMembers is GET /raft.
func (s *Server) getMembers(w http.ResponseWriter, r *http.Request) *problem {
	ctx, cancel := s.reading(r)
	defer cancel()
	members, err := s.options.Cluster.Members(ctx)
	if err != nil {
		return s.problemOf(err)
	}
	const about = 256 // bytes that a member takes, here and encoded
	answer, p := s.newPage(w, http.StatusOK, about*len(members)+len("[]\n"), about*len(members))
	if p != nil {
		return p
	}
	defer answer.close()
	answer.b = append(answer.b, '[')
	for i := range members {
		if i > 0 {
			answer.b = append(answer.b, ',')
		}
		b, err := json.Marshal(&members[i])
		if err != nil {
			answer.cut() // there is nothing in a Member that has no encoding
		}
		answer.b = append(answer.b, b...)
		answer.step()
	}
	answer.b = append(answer.b, "]\n"...)
	answer.finish()
	return nil
}

// addMember is POST /raft/{id} with the peer URL as the body.
func (s *Server) addMember(w http.ResponseWriter, r *http.Request) *problem {
	id, p := memberID(r)
	if p != nil {
		return p
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	if p := checkContentEncoding(r.Header); p != nil {
		return p
	}
	body, p := s.readBody(w, r, nil, maxMembershipBody, codeBodyTooLarge)
	if p != nil {
		return p
	}
	if len(bytes.TrimSpace(withoutMark(body))) == 0 {
		return newProblem(codeMemberURLInvalid, "the body is the member's peer URL, such as http://127.0.0.1:42379")
	}
	peerURL, err := peeraddr.ParseURL(string(withoutMark(body)))
	if err != nil {
		return newProblem(codeMemberURLInvalid, err.Error())
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	if err := s.options.Cluster.AddMember(ctx, id, peerURL, q.flag("learner")); err != nil {
		return s.problemOf(err)
	}
	s.options.Logger.Info("member added", slog.Uint64("member", id), slog.String("peer_url", peerURL),
		slog.Bool("learner", q.flag("learner")))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// promoteMember is POST /raft/{id}/promote.
func (s *Server) promoteMember(w http.ResponseWriter, r *http.Request) *problem {
	id, p := memberID(r)
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	if err := s.options.Cluster.PromoteMember(ctx, id); err != nil {
		return s.problemOf(err)
	}
	s.options.Logger.Info("member promoted", slog.Uint64("member", id))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// removeMember is DELETE /raft/{id}.
func (s *Server) removeMember(w http.ResponseWriter, r *http.Request) *problem {
	id, p := memberID(r)
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	if err := s.options.Cluster.RemoveMember(ctx, id); err != nil {
		return s.problemOf(err)
	}
	s.options.Logger.Info("member removed", slog.Uint64("member", id))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// transferLeadership is POST /raft/leader with {"ID":2}.
func (s *Server) transferLeadership(w http.ResponseWriter, r *http.Request) *problem {
	if p := checkContentEncoding(r.Header); p != nil {
		return p
	}
	body, p := s.readBody(w, r, nil, maxMembershipBody, codeBodyTooLarge)
	if p != nil {
		return p
	}
	target, p := decodeTransfer(r.Header, body)
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	if err := s.options.Cluster.TransferLeadership(ctx, target); err != nil {
		return s.problemOf(err)
	}
	s.options.Logger.Info("leadership transferred", slog.Uint64("member", target))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// decodeTransfer returns the member that {"ID":2} names.
func decodeTransfer(h http.Header, body []byte) (uint64, *problem) {
	kind, p := kindOf(h)
	if p != nil {
		return 0, p
	}
	if kind == bodyText {
		return 0, newProblem(codeMediaType, `the body is application/json: {"ID":2}`)
	}
	if body = withoutMark(body); !utf8.Valid(body) {
		return 0, newProblem(codeBodyInvalidUTF8, encodingDetail("the body", body))
	}
	var target struct{ ID uint64 }
	if err := json.Unmarshal(body, &target); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field == "ID" {
			return 0, newProblem(codeMemberIDInvalid, "ID is a whole number from 1 to 18446744073709551613")
		}
		return 0, newProblem(codeJSONInvalid, jsonDetail("body", err))
	}
	if target.ID == 0 {
		return 0, newProblem(codeMemberIDInvalid, `the body names the member that shall lead: {"ID":2}`)
	}
	if err := peeraddr.CheckID(target.ID); err != nil {
		return 0, newProblem(codeMemberIDInvalid, err.Error())
	}
	return target.ID, nil
}

// memberID returns the member that the URL names.
func memberID(r *http.Request) (uint64, *problem) {
	text, _ := pathParam(r, "id")
	id, ok := parseUint(text)
	if !ok {
		return 0, newProblem(codeMemberIDInvalid, "a member id is a whole number from 1 on")
	}
	if err := peeraddr.CheckID(id); err != nil {
		return 0, newProblem(codeMemberIDInvalid, err.Error())
	}
	return id, nil
}
