package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// memberTable makes a node keep members, each as id=url, and note the changes.
type memberTable struct {
	members []string
	used    []string
	changes []string
}

func (m *memberTable) answer(w http.ResponseWriter, r *http.Request) bool {
	id, isChange := strings.CutPrefix(r.URL.Path, "/raft/")
	if r.URL.Path == "/raft" {
		list := []map[string]any{}
		for i, x := range m.members {
			id, url, _ := strings.Cut(x, "=")
			list = append(list, map[string]any{"ID": json.Number(id), "PeerURL": url, "ClientURL": fmt.Sprint("http://127.0.0.1:", 9000+i), "Role": "follower"})
		}
		if err := json.NewEncoder(w).Encode(list); err != nil {
			panic(err)
		}
		return true
	}
	if !isChange {
		return false
	}
	body, _ := io.ReadAll(r.Body) // a body that breaks off fails the comparison
	m.changes = append(m.changes, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	switch {
	case r.Method == http.MethodDelete:
		m.members = slices.DeleteFunc(m.members, func(x string) bool { return strings.HasPrefix(x, id+"=") })
		m.used = append(m.used, id)
	case slices.Contains(m.used, id):
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"code":"member_id_used","detail":"take another"}`)
		return true
	case !strings.Contains(id, "/"):
		m.members = append(m.members, id+"="+string(body))
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

func TestMembersChangeCommands(t *testing.T) {
	three := []string{"1=http://127.0.0.1:1", "2=http://127.0.0.1:2", "3=http://127.0.0.1:3"}
	for _, tt := range []struct {
		args    string
		used    []string
		changes []string
		says    []string
		command string
	}{
		{args: "add 4 http://127.0.0.1:4", changes: []string{"POST /raft/4 http://127.0.0.1:4"}, says: []string{"member 4 is added, at http://127.0.0.1:4"},
			command: "raft-chat --id 4 --cluster 1=http://127.0.0.1:1,2=http://127.0.0.1:2,3=http://127.0.0.1:3,4=http://127.0.0.1:4 --join --data-dir ./raft-chat-4"},
		{args: "add --learner 4 http://Host:4/", changes: []string{"POST /raft/4?learner=true http://host:4"},
			command: "raft-chat --id 4 --cluster 1=http://127.0.0.1:1,2=http://127.0.0.1:2,3=http://127.0.0.1:3,4=http://host:4 --join --data-dir ./raft-chat-4 --insecure-peers"},
		{args: "promote 3", changes: []string{"POST /raft/3/promote"}, says: []string{"member 3 votes now"}},
		{args: "remove 3", changes: []string{"DELETE /raft/3"}, says: []string{"member 3 is removed"}},
		// The address of the old one, and the next id that was never used.
		{args: "replace 2", used: []string{"4", "5"},
			changes: []string{"DELETE /raft/2", "POST /raft/4 http://127.0.0.1:2", "POST /raft/5 http://127.0.0.1:2", "POST /raft/6 http://127.0.0.1:2"},
			says:    []string{"member 2 is removed", "member 6 is added, at http://127.0.0.1:2"},
			command: "raft-chat --id 6 --cluster 1=http://127.0.0.1:1,3=http://127.0.0.1:3,6=http://127.0.0.1:2 --join --data-dir ./raft-chat-6 --port 9001"},
		{args: "replace 3 9 http://127.0.0.1:9", changes: []string{"DELETE /raft/3", "POST /raft/9 http://127.0.0.1:9"},
			command: "raft-chat --id 9 --cluster 1=http://127.0.0.1:1,2=http://127.0.0.1:2,9=http://127.0.0.1:9 --join --data-dir ./raft-chat-9 --port 9002"},
	} {
		n := startCLINode(t)
		table := &memberTable{members: slices.Clone(three), used: tt.used}
		n.answer = table.answer
		got := invoke(t, "", append([]string{"members"}, append(strings.Fields(tt.args), "--endpoints", n.url)...))
		if got.code != exitOK || got.stderr != "" || !slices.Equal(table.changes, tt.changes) {
			t.Errorf("%s: %+v, asked for %q", tt.args, got, table.changes)
		}
		for _, want := range append(tt.says, tt.command) {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%s: no %q in\n%s", tt.args, want, got.stdout)
			}
		}
		if tt.command != "" && !strings.HasSuffix(got.stdout, "    "+tt.command+"\n") {
			t.Errorf("%s: the command is not the last line:\n%s", tt.args, got.stdout)
		}
	}
}

func TestReplaceAsJSON(t *testing.T) {
	n := startCLINode(t)
	n.answer = (&memberTable{members: []string{"1=http://127.0.0.1:1", "2=http://127.0.0.1:2"}}).answer
	got := invoke(t, "", []string{"members", "replace", "2", "-o", "json", "--endpoints", n.url})
	var change memberChange
	if err := json.Unmarshal([]byte(got.stdout), &change); err != nil || change.Removed != 2 || change.Added != 3 || change.PeerURL != "http://127.0.0.1:2" || len(change.Start) < 8 {
		t.Errorf("%v in %+v", err, got)
	}
}

// What can be refused is refused before anything is removed.
func TestMembersRefusals(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"add 4":                                       {exitUsage, "an id and a peer URL"},
		"add x http://127.0.0.1:4":                    {exitUsage, `"x" is not a member id`},
		"add 0 http://127.0.0.1:4":                    {exitUsage, `"0" is not a member id`},
		"add 4 127.0.0.1:4":                           {exitUsage, "it has no scheme; want http://HOST:PORT"},
		"add 4 http://127.0.0.1":                      {exitUsage, "it has no port; want http://HOST:PORT"},
		"add 4 http://127.0.0.1:0":                    {exitUsage, "from 1 to 65535; want http://HOST:PORT"},
		"add 4 http://u@127.0.0.1:4":                  {exitUsage, "a user, a path, a query or a fragment; want http://HOST:PORT"},
		"add 10 https://127.0.0.1:4":                  {exitUsage, "peers do not speak TLS yet; want http://HOST:PORT"},
		"add 18446744073709551614 http://127.0.0.1:4": {exitUsage, "18446744073709551614 is not a node id: raft keeps"},
		"add 18446744073709551615 http://127.0.0.1:4": {exitUsage, "18446744073709551615 is not a node id: raft keeps"},
		"promote":                        {exitUsage, "an id"},
		"remove 3 4":                     {exitUsage, "an id"},
		"replace":                        {exitUsage, "the id to replace"},
		"replace 3 x":                    {exitUsage, `"x" is not a member id`},
		"replace 3 4 here":               {exitUsage, "it has no scheme; want http://HOST:PORT"},
		"replace 7":                      {exitFailure, "no member has the id 7"},
		"replace 2 1":                    {exitFailure, "member 1 is in the cluster already"},
		"replace 2 2":                    {exitFailure, "member 2 is in the cluster already"},
		"replace 2 3 http://127.0.0.1:1": {exitFailure, "belongs to member 1"},
		"ad 4 http://127.0.0.1:4":        {exitUsage, "did you mean add?"},
		"transfer":                       {exitUsage, "an id"},
		"transfer 0":                     {exitUsage, "not a member id"},
	} {
		n := startCLINode(t)
		table := &memberTable{members: []string{"1=http://127.0.0.1:1", "2=http://127.0.0.1:2"}}
		n.answer = table.answer
		got := invoke(t, "", append([]string{"members"}, append(strings.Fields(args), "--endpoints", n.url)...))
		if got.code != want.code || !strings.Contains(got.stderr, want.says) || len(table.changes) != 0 {
			t.Errorf("%s: %+v, asked for %q", args, got, table.changes)
		}
	}
	// An id that the user chose is not exchanged for another.
	n := startCLINode(t)
	table := &memberTable{members: []string{"1=http://127.0.0.1:1", "2=http://127.0.0.1:2"}, used: []string{"8"}}
	n.answer = table.answer
	got := invoke(t, "", []string{"members", "replace", "2", "8", "--endpoints", n.url})
	if got.code != exitFailure || !strings.Contains(got.stderr, "go on with: raft-chat members add NEW-ID http://127.0.0.1:2") || !strings.Contains(got.stderr, "member_id_used") {
		t.Errorf("an id that was used: %+v", got)
	}
}
