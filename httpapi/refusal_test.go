package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// refusals is what clients get wrong, and the answer to it. Each request is sent as raw bytes, because net/http's
// client would repair some of them.
var refusals = []struct {
	name    string
	request string // request line without the version
	header  string // header lines, joined by |
	body    string
	status  int
	code    string
}{
	// Room names
	{"slash in a room name", "GET /rooms/a%2Fb", "", "", 400, "room_name_invalid"},
	{"slash in a room name, small hex", "POST /rooms/a%2fb", "", `{"Message":"m","User":"u"}`, 400, "room_name_invalid"},
	{"slash in a short URL", "GET /a%2Fb", "", "", 400, "room_name_invalid"},
	{"slash in the room of a message", "GET /rooms/a%2Fb/1", "", "", 400, "room_name_invalid"},
	{"slash in the room of the page", "GET /rooms/a%2Fb", "Accept: application/xhtml+xml", "", 400, "room_name_invalid"},
	{"comma", "GET /rooms/a,b", "", "", 400, "room_name_invalid"},
	{"encoded comma", "GET /rooms/a%2Cb", "", "", 400, "room_name_invalid"},
	{"dot", "GET /rooms/.", "", "", 400, "room_name_invalid"},
	{"encoded dot", "GET /rooms/%2E", "", "", 400, "room_name_invalid"},
	{"two dots", "POST /rooms/..", "", `{"Message":"m","User":"u"}`, 400, "room_name_invalid"},
	{"two encoded dots", "GET /rooms/%2e%2e", "", "", 400, "room_name_invalid"},
	{"two dots in a short URL", "GET /..", "", "", 400, "room_name_invalid"},
	{"line feed", "GET /rooms/a%0Ab", "", "", 400, "room_name_invalid"},
	{"zero byte", "GET /rooms/a%00", "", "", 400, "room_name_invalid"},
	{"C1 control character", "GET /rooms/%C2%85", "", "", 400, "room_name_invalid"},
	{"room name is not UTF-8", "GET /rooms/%FF", "", "", 400, "room_name_invalid"},
	{"cut UTF-8", "GET /rooms/%C3", "", "", 400, "room_name_invalid"},
	{"encoded surrogate", "GET /rooms/%ED%A0%80", "", "", 400, "room_name_invalid"},
	{"room name of 129 bytes", "GET /rooms/" + strings.Repeat("x", 129), "", "", 400, "room_name_invalid"},
	{"room name of 4 KiB", "GET /rooms/" + strings.Repeat("x", 4096), "", "", 400, "room_name_invalid"},

	// Bodies
	{"no body", "POST /rooms/r", "X-User: u", "", 400, "message_empty"},
	{"empty message", "POST /rooms/r", "", `{"Message":"","User":"u"}`, 400, "message_empty"},
	{"no message", "POST /rooms/r", "", `{"User":"u"}`, 400, "message_empty"},
	{"message null", "POST /rooms/r", "", `{"Message":null,"User":"u"}`, 400, "message_empty"},
	{"no user", "POST /rooms/r", "", `{"Message":"m"}`, 400, "user_name_invalid"},
	{"empty user", "POST /rooms/r", "", `{"Message":"m","User":""}`, 400, "user_name_invalid"},
	{"user with a control character", "POST /rooms/r", "", `{"Message":"m","User":"a\u0007"}`, 400, "user_name_invalid"},
	{"user of 65 bytes", "POST /rooms/r", "", `{"Message":"m","User":"` + strings.Repeat("x", 65) + `"}`, 400, "user_name_invalid"},
	{"text without a user", "POST /rooms/r", "", "hello", 400, "user_name_invalid"},
	{"two authors", "POST /rooms/r", "X-User: bob", `{"Message":"m","User":"ann"}`, 400, "user_name_invalid"},
	{"two X-User", "POST /rooms/r", "X-User: ann|X-User: ann", "hello", 400, "user_name_invalid"},
	{"author in an unknown charset", "POST /rooms/r", "X-User: =?koi8-r?q?=C1?=", "hello", 400, "user_name_invalid"},
	{"author that decodes to no UTF-8", "POST /rooms/r", "X-User: =?utf-8?q?=C1?=", "hello", 400, "user_name_invalid"},
	{"author that decodes to a line feed", "POST /rooms/r", "X-User: =?utf-8?q?a=0Ab?=", "hello", 400, "user_name_invalid"},
	{"author that does not show", "POST /rooms/r", "", `{"Message":"m","User":"\u200b"}`, 400, "user_name_invalid"},
	{"author with a zero width space", "POST /rooms/r", "X-User: ann\u200b", "hello", 400, "user_name_invalid"},
	{"room of a no-break space", "POST /rooms/%C2%A0", "X-User: u", "hello", 400, "room_name_invalid"},
	{"room of a zero width space", "POST /rooms/%E2%80%8B", "X-User: u", "hello", 400, "room_name_invalid"},
	{"room with a space in front", "POST /rooms/%20general", "X-User: u", "hello", 400, "room_name_invalid"},
	{"room with a space behind", "POST /rooms/general%20", "X-User: u", "hello", 400, "room_name_invalid"},
	{"room with a zero width space", "POST /rooms/general%E2%80%8B", "X-User: u", "hello", 400, "room_name_invalid"},
	{"room that turns text around", "POST /rooms/a%E2%80%AEb", "X-User: u", "hello", 400, "room_name_invalid"},
	{"blank message", "POST /rooms/r", "", `{"Message":"   ","User":"u"}`, 400, "message_empty"},
	{"blank text", "POST /rooms/r", "X-User: u", " \n\u3000\u200b", 400, "message_empty"},
	{"two client message ids", "POST /rooms/r", "X-Client-Message-ID: a", `{"Message":"m","User":"u","ClientMessageID":"b"}`, 400, "client_message_id_invalid"},
	{"two ids in headers", "POST /rooms/r", "X-User: u|X-Client-Message-ID: a|Idempotency-Key: b", "hello", 400, "client_message_id_invalid"},
	{"another idempotency key", "POST /rooms/r", `Idempotency-Key: "a"`, `{"Message":"m","User":"u","ClientMessageID":"b"}`, 400, "client_message_id_invalid"},
	{"two X-Client-Message-ID", "POST /rooms/r", "X-User: u|X-Client-Message-ID: a|X-Client-Message-ID: a", "hello", 400, "client_message_id_invalid"},
	{"two idempotency keys", "POST /rooms/r", "X-User: u|Idempotency-Key: a|Idempotency-Key: b", "hello", 400, "client_message_id_invalid"},
	{"client message id that does not show", "POST /rooms/r", "", `{"Message":"m","User":"u","ClientMessageID":"a\ufeff"}`, 400, "client_message_id_invalid"},
	{"client message id of 129 bytes", "POST /rooms/r", "", `{"Message":"m","User":"u","ClientMessageID":"` + strings.Repeat("x", 129) + `"}`, 400, "client_message_id_invalid"},
	{"client message id with a control character", "POST /rooms/r", "", `{"Message":"m","User":"u","ClientMessageID":"\n"}`, 400, "client_message_id_invalid"},
	{"client message id of text with a tab", "POST /rooms/r", "X-User: u|X-Client-Message-ID: a\tb", "hello", 400, "client_message_id_invalid"},
	{"cut JSON", "POST /rooms/r", "", `{"Message":"m","User":"u"`, 400, "json_invalid"},
	{"garbage behind JSON", "POST /rooms/r", "", `{"Message":"m","User":"u"} x`, 400, "json_invalid"},
	{"second object", "POST /rooms/r", "", `{"Message":"m","User":"u"}{"Message":"m","User":"u"}`, 400, "json_invalid"},
	{"brace alone", "POST /rooms/r", "", `{`, 400, "json_invalid"},
	{"trailing comma", "POST /rooms/r", "", `{"Message":"m","User":"u",}`, 400, "json_invalid"},
	{"single quotes", "POST /rooms/r", "", `{'Message':'m'}`, 400, "json_invalid"},
	{"message is a number", "POST /rooms/r", "", `{"Message":1,"User":"u"}`, 400, "json_invalid"},
	{"user is an object", "POST /rooms/r", "", `{"Message":"m","User":{}}`, 400, "json_invalid"},
	{"raw line feed in a JSON string", "POST /rooms/r", "", "{\"Message\":\"a\nb\",\"User\":\"u\"}", 400, "json_invalid"},
	{"bad escape", "POST /rooms/r", "", `{"Message":"\x41","User":"u"}`, 400, "json_invalid"},
	{"array declared as JSON", "POST /rooms/r", "Content-Type: application/json", `["m"]`, 400, "json_invalid"},
	{"string declared as JSON", "POST /rooms/r", "Content-Type: application/json; charset=utf-8", `"m"`, 400, "json_invalid"},
	{"nothing declared as JSON", "POST /rooms/r", "Content-Type: application/json", ``, 400, "json_invalid"},
	{"byte order mark without JSON", "POST /rooms/r", "Content-Type: application/json", "\ufeff", 400, "json_invalid"},
	{"two byte order marks", "POST /rooms/r", "Content-Type: application/json", "\ufeff\ufeff{}", 400, "json_invalid"},
	{"JSON in UTF-16", "POST /rooms/r", "Content-Type: application/json", "\xff\xfe{\x00}\x00", 400, "body_invalid_utf8"},
	{"text in UTF-16", "POST /rooms/r", "X-User: u", "\xfe\xff\x00h\x00i", 400, "message_invalid_utf8"},
	{"text declared as JSON", "POST /rooms/r", "Content-Type: application/json|X-User: u", "hello", 400, "json_invalid"},
	{"broken JSON of the form type", "POST /rooms/r", "Content-Type: application/x-www-form-urlencoded|X-User: u", "{{ .Title }} fired", 400, "json_invalid"},
	{"nesting without end", "POST /rooms/r", "", `{"a":` + strings.Repeat("[", 20000), 400, "json_invalid"},
	{"JSON that is not UTF-8", "POST /rooms/r", "", "{\"Message\":\"\xff\",\"User\":\"u\"}", 400, "body_invalid_utf8"},
	{"unknown key that is not UTF-8", "POST /rooms/r", "", "{\"Message\":\"m\",\"User\":\"u\",\"\xff\":1}", 400, "body_invalid_utf8"},
	{"lone high surrogate", "POST /rooms/r", "", `{"Message":"\ud800","User":"u"}`, 400, "json_invalid"},
	{"lone low surrogate", "POST /rooms/r", "", `{"Message":"x\udc00","User":"u"}`, 400, "json_invalid"},
	{"two high surrogates", "POST /rooms/r", "", `{"Message":"\ud83d\ud83d","User":"u"}`, 400, "json_invalid"},
	{"text that is not UTF-8", "POST /rooms/r", "X-User: u", "a\xffb", 400, "message_invalid_utf8"},
	{"message of 64 KiB and a byte", "POST /rooms/r", "X-User: u", strings.Repeat("x", 64<<10+1), 413, "message_too_large"},
	{"body over the limit", "POST /rooms/r", "X-User: u", strings.Repeat("x", 1<<20+1), 413, "message_too_large"},
	{"body over the limit, not read", "POST /rooms/r", "Content-Length: 99999999999", "", 413, "message_too_large"},
	{"body far over the limit", "POST /rooms/r", "X-User: u", strings.Repeat("x", 8<<20), 413, "message_too_large"},
	{"JSON over the limit", "POST /rooms/r", "", `{"User":"u","Message":"` + strings.Repeat(`\u0001`, 64<<10+1) + `"}`, 413, "message_too_large"},
	{"gzip", "POST /rooms/r", "Content-Encoding: gzip", `{"Message":"m","User":"u"}`, 415, "content_encoding_unsupported"},
	{"UTF-16 declared", "POST /rooms/r", "Content-Type: application/json; charset=utf-16", `{"Message":"m","User":"u"}`, 415, "media_type_unsupported"},
	{"HTML", "POST /rooms/r", "Content-Type: text/html|X-User: u", "<p>hello", 415, "media_type_unsupported"},
	{"XML", "POST /rooms/r", "Content-Type: application/xml", "<m/>", 415, "media_type_unsupported"},
	{"JSON declared as an image", "POST /rooms/r", "Content-Type: image/png", `{"Message":"m","User":"u"}`, 415, "media_type_unsupported"},
	{"two types", "POST /rooms/r", "Content-Type: text/plain|Content-Type: application/json", `{"Message":"m","User":"u"}`, 415, "media_type_unsupported"},
	{"image", "POST /rooms/r", "Content-Type: image/png|X-User: u", "hello", 415, "media_type_unsupported"},
	{"multipart form", "POST /rooms/r", "Content-Type: multipart/form-data; boundary=x|X-User: u", "--x--", 415, "media_type_unsupported"},
	{"unreadable type", "POST /rooms/r", "Content-Type: ;;|X-User: u", "hello", 415, "media_type_unsupported"},
	{"other charset", "POST /rooms/r", "Content-Type: text/plain; charset=latin1|X-User: u", "hello", 415, "media_type_unsupported"},

	// Queries
	{"after is a word", "GET /rooms/r?after=x", "", "", 400, "cursor_invalid"},
	{"after is empty", "GET /rooms/r?after=", "", "", 400, "cursor_invalid"},
	{"after is negative", "GET /rooms/r?after=-1", "", "", 400, "cursor_invalid"},
	{"after has a plus", "GET /rooms/r?after=%2B1", "", "", 400, "cursor_invalid"},
	{"before over 64 bits", "GET /rooms/r?before=18446744073709551616", "", "", 400, "cursor_invalid"},
	{"before is hexadecimal", "GET /rooms/r?before=0x10", "", "", 400, "cursor_invalid"},
	{"limit 0", "GET /rooms/r?limit=0", "", "", 400, "limit_invalid"},
	{"limit 1001", "GET /rooms/r?limit=1001", "", "", 400, "limit_invalid"},
	{"limit is a fraction", "GET /rooms/r?limit=1.5", "", "", 400, "limit_invalid"},
	{"limit of rooms", "GET /rooms?limit=-5", "", "", 400, "limit_invalid"},
	{"unknown consistency", "GET /rooms/r?consistency=eventual", "", "", 400, "consistency_invalid"},
	{"empty consistency", "GET /rooms?consistency=", "", "", 400, "consistency_invalid"},
	{"consistency of a message", "GET /rooms/r/1?consistency=x", "", "", 400, "consistency_invalid"},
	{"query with a bad escape", "GET /rooms/r?after=%zz", "", "", 400, "query_invalid"},
	{"query with a semicolon", "GET /rooms/r?after=1;limit=2", "", "", 400, "query_invalid"},
	{"prefix that is not UTF-8", "GET /rooms?prefix=%ff", "", "", 400, "query_invalid"},

	// Messages and routes that are not there
	{"message of no room", "GET /rooms/none/1", "", "", 404, "room_not_found"},
	{"message 0", "GET /rooms/r/0", "", "", 404, "message_not_found"},
	{"message is a word", "GET /rooms/r/first", "", "", 404, "message_not_found"},
	{"message over 64 bits", "GET /rooms/r/99999999999999999999", "", "", 404, "message_not_found"},
	{"deeper than a message", "GET /rooms/r/1/2", "", "", 404, "not_found"},
	{"double slash", "GET //rooms", "", "", 404, "not_found"},
	{"double slash inside", "GET /rooms//r", "", "", 404, "not_found"},
	{"double slash to another host", "GET //example.com/", "", "", 404, "not_found"},
	{"post with a slash at the end", "POST /rooms/r/", "", "{}", 404, "not_found"},
	{"unknown file of the client", "GET /_/none.js", "", "", 404, "not_found"},
	{"path out of the client", "GET /_/..%2Fserver.go", "", "", 404, "not_found"},
	{"folder of the client", "GET /_/", "", "", 404, "not_found"},

	// Methods
	{"delete a room", "DELETE /rooms/r", "", "", 405, "method_not_allowed"},
	{"put a message", "PUT /rooms/r/1", "", "", 405, "method_not_allowed"},
	{"post to the list", "POST /rooms", "", "{}", 405, "method_not_allowed"},
	{"post to a short URL", "POST /r", "", "{}", 405, "method_not_allowed"},
	{"unknown method", "BREW /rooms/r", "", "", 405, "method_not_allowed"},
	{"unknown method nowhere", "BREW /a/b/c/d", "", "", 404, "not_found"},
	{"trace", "TRACE /rooms/r", "", "", 405, "method_not_allowed"},
	{"get the leader", "GET /raft/leader", "", "", 405, "method_not_allowed"},
	{"post to health", "POST /health", "", "", 405, "method_not_allowed"},

	// Members
	{"member id is a word", "POST /raft/four", "", "http://127.0.0.1:42379", 400, "member_id_invalid"},
	{"member id 0", "POST /raft/0", "", "http://127.0.0.1:42379", 400, "member_id_invalid"},
	{"member id of raft's append step", "POST /raft/18446744073709551615", "", "http://127.0.0.1:42379", 400, "member_id_invalid"},
	{"member id of raft's apply step", "POST /raft/18446744073709551614?learner=1", "", "http://127.0.0.1:42379", 400, "member_id_invalid"},
	{"removal of raft's apply step", "DELETE /raft/18446744073709551614", "", "", 400, "member_id_invalid"},
	{"promotion of raft's append step", "POST /raft/18446744073709551615/promote", "", "", 400, "member_id_invalid"},
	{"transfer to raft's append step", "POST /raft/leader", "", `{"ID":18446744073709551615}`, 400, "member_id_invalid"},
	{"member id over 64 bits", "DELETE /raft/18446744073709551616", "", "", 400, "member_id_invalid"},
	{"member id with a slash", "DELETE /raft/1%2F2", "", "", 400, "member_id_invalid"},
	{"no peer URL", "POST /raft/4", "", "", 400, "member_url_invalid"},
	{"peer URL without a scheme", "POST /raft/4", "", "127.0.0.1:42379", 400, "member_url_invalid"},
	{"peer URL with another scheme", "POST /raft/4", "", "ftp://127.0.0.1:42379", 400, "member_url_invalid"},
	{"peer URL with TLS", "POST /raft/4", "", "https://127.0.0.1:42379", 400, "member_url_invalid"},
	{"peer URL with half an address", "POST /raft/4", "", "http://127.1:42379", 400, "member_url_invalid"},
	{"peer URL at every address", "POST /raft/4", "", "http://0.0.0.0:42379", 400, "member_url_invalid"},
	{"peer URL without a port", "POST /raft/4", "", "http://127.0.0.1", 400, "member_url_invalid"},
	{"peer URL with port 0", "POST /raft/4", "", "http://127.0.0.1:0", 400, "member_url_invalid"},
	{"peer URL with port 65536", "POST /raft/4", "", "http://127.0.0.1:65536", 400, "member_url_invalid"},
	{"peer URL with a path", "POST /raft/4", "", "http://127.0.0.1:42379/raft", 400, "member_url_invalid"},
	{"peer URL with a query", "POST /raft/4", "", "http://127.0.0.1:42379?", 400, "member_url_invalid"},
	{"peer URL with a fragment", "POST /raft/4", "", "http://127.0.0.1:42379#", 400, "member_url_invalid"},
	{"peer URL with a user", "POST /raft/4", "", "http://u:p@127.0.0.1:42379", 400, "member_url_invalid"},
	{"peer URL without a host", "POST /raft/4", "", "http://:42379", 400, "member_url_invalid"},
	{"peer URL with a space", "POST /raft/4", "", "http://a b:42379", 400, "member_url_invalid"},
	{"peer URL with a bad host", "POST /raft/4", "", "http://a\"b:42379", 400, "member_url_invalid"},
	{"peer URL that is not UTF-8", "POST /raft/4", "", "http://\xff:42379", 400, "member_url_invalid"},
	{"two peer URLs", "POST /raft/4", "", "http://a:1\nhttp://b:2", 400, "member_url_invalid"},
	{"peer URL of 2 KiB", "POST /raft/4", "", "http://" + strings.Repeat("a", 2048) + ":1", 413, "body_too_large"},
	{"transfer to nobody", "POST /raft/leader", "", "{}", 400, "member_id_invalid"},
	{"transfer to a name", "POST /raft/leader", "", `{"ID":"two"}`, 400, "member_id_invalid"},
	{"transfer to a fraction", "POST /raft/leader", "", `{"ID":1.5}`, 400, "member_id_invalid"},
	{"transfer to 1e400", "POST /raft/leader", "", `{"ID":1e400}`, 400, "member_id_invalid"},
	{"transfer to a negative number", "POST /raft/leader", "", `{"ID":-1}`, 400, "member_id_invalid"},
	{"transfer to 2^64", "POST /raft/leader", "", `{"ID":18446744073709551616}`, 400, "member_id_invalid"},
	{"transfer to what raft keeps", "POST /raft/leader", "", `{"ID":18446744073709551615}`, 400, "member_id_invalid"},
	{"transfer to the other that raft keeps", "POST /raft/leader", "", `{"ID":18446744073709551614}`, 400, "member_id_invalid"},
	{"transfer to null", "POST /raft/leader", "", `{"ID":null}`, 400, "member_id_invalid"},
	{"transfer to a string", "POST /raft/leader", "", `{"ID":"2"}`, 400, "member_id_invalid"},
	{"transfer as text", "POST /raft/leader", "Content-Type: text/plain", `{"ID":2}`, 415, "media_type_unsupported"},
	{"transfer in UTF-16", "POST /raft/leader", "", "\xff\xfe{\x00}\x00", 400, "body_invalid_utf8"},
	{"transfer in latin1", "POST /raft/leader", "Content-Type: application/json; charset=latin1", `{"ID":2}`, 415, "media_type_unsupported"},
	{"transfer without JSON", "POST /raft/leader", "", `2`, 400, "json_invalid"},
	{"promote with a bad id", "POST /raft/-1/promote", "", "", 400, "member_id_invalid"},

	// Streams
	{"stream without an upgrade", "GET /ws", "", "", 426, "upgrade_required"},
	{"stream with a bad version", "GET /ws", "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 8|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", 400, "handshake_invalid"},
	{"stream without a key", "GET /ws", "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13", "", 400, "handshake_invalid"},
	{"stream with a short key", "GET /ws", "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: YQ==", "", 400, "handshake_invalid"},
	{"stream of another origin", "GET /ws", handshake + "|Origin: https://evil.example", "", 403, "origin_not_allowed"},
	{"stream of no origin", "GET /ws", handshake + "|Origin: null", "", 403, "origin_not_allowed"},
	{"stream with a bad cursor", "GET /ws?since=10x", handshake, "", 400, "cursor_invalid"},
	{"stream of all rooms after a number", "GET /ws?after=1", handshake, "", 400, "cursor_invalid"},
	{"poll beyond the head", "GET /ws?poll=1&since=99", handshake, "", 400, "cursor_beyond_head"},
	{"poll of lines beyond the head", "GET /rooms/r/json?poll=1&since=1700000000", "", "", 400, "cursor_beyond_head"},
	{"poll of raw beyond the head", "GET /rooms/r/raw?poll=1&since=1700000000", "", "", 400, "cursor_beyond_head"},
	{"poll of frames beyond the head", "GET /rooms/r/ws?poll=1&since=1700000000", handshake, "", 400, "cursor_beyond_head"},
	{"poll beyond the end of a room", "GET /rooms/r/json?poll=1&after=99", "", "", 400, "cursor_beyond_head"},
	{"stream with a bad consistency", "GET /rooms/r/json?consistency=maybe", "", "", 400, "consistency_invalid"},
	{"lines since no Unix time", "GET /rooms/r/json?since=@-5", "", "", 400, "cursor_invalid"},
	{"room stream without an upgrade", "GET /rooms/r/ws", "", "", 426, "upgrade_required"},
	{"room stream with a bad version", "GET /rooms/r/ws", "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 8|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", 400, "handshake_invalid"},
	{"events for another origin", "GET /rooms/r/events", "Origin: https://evil.example", "", 403, "origin_not_allowed"},
	{"lines for another origin", "GET /rooms/r/json?poll=1", "Origin: https://evil.example", "", 403, "origin_not_allowed"},
	{"raw for another site", "GET /rooms/r/raw", "Sec-Fetch-Site: same-site", "", 403, "origin_not_allowed"},
	{"post of another origin", "POST /rooms/r", "Origin: https://evil.example", `{"Message":"m","User":"u"}`, 403, "origin_not_allowed"},
	{"member of another origin", "POST /raft/9", "Origin: null", "http://127.0.0.1:1", 403, "origin_not_allowed"},
	{"promotion by another site", "POST /raft/2/promote", "Sec-Fetch-Site: cross-site", "", 403, "origin_not_allowed"},
	{"leader of another origin", "POST /raft/leader", "Origin: https://evil.example|Content-Type: text/plain", `{"ID":2}`, 403, "origin_not_allowed"},
	{"removal by another origin", "DELETE /raft/2", "Origin: https://evil.example", "", 403, "origin_not_allowed"},
	{"room stream of another origin", "GET /rooms/r/ws", handshake + "|Origin: https://evil.example", "", 403, "origin_not_allowed"},
	{"room stream with after and since", "GET /rooms/r/ws?after=1&since=1", handshake, "", 400, "cursor_invalid"},
	{"events of a bad room", "GET /rooms/a%2Fb/events", "", "", 400, "room_name_invalid"},
	{"events of an empty room name", "GET /rooms/a,,b/events", "", "", 400, "room_name_invalid"},
	{"events of a room named by a dot", "GET /rooms/a,./events", "", "", 400, "room_name_invalid"},
	{"events of a room that is not UTF-8", "GET /rooms/a,%FF/events", "", "", 400, "room_name_invalid"},
	{"events after a word", "GET /rooms/r/events?after=x", "", "", 400, "cursor_invalid"},
	{"events after nothing", "GET /rooms/r/events?after=", "", "", 400, "cursor_invalid"},
	{"events after a negative number", "GET /rooms/r/events?after=-1", "", "", 400, "cursor_invalid"},
	{"events after the last number", "GET /rooms/r/events?after=18446744073709551615", "", "", 400, "cursor_invalid"},
	{"events after a number of two rooms", "GET /rooms/a,b/events?after=1", "", "", 400, "cursor_invalid"},
	{"events since nothing", "GET /rooms/r/events?since=", "", "", 400, "cursor_invalid"},
	{"events since a word", "GET /rooms/r/events?since=yesterday", "", "", 400, "cursor_invalid"},
	{"events since the future", "GET /rooms/r/events?since=-10m", "", "", 400, "cursor_invalid"},
	{"events since a day", "GET /rooms/r/events?since=1d", "", "", 400, "cursor_invalid"},
	{"events since a number over 64 bits", "GET /rooms/r/events?since=18446744073709551616", "", "", 400, "cursor_invalid"},
	{"events since a fraction", "GET /rooms/r/events?since=1.5", "", "", 400, "cursor_invalid"},
	{"events since a date", "GET /rooms/r/events?since=2026-01-01", "", "", 400, "cursor_invalid"},
	{"events since a 13th month", "GET /rooms/r/events?since=2026-13-01T00:00:00Z", "", "", 400, "cursor_invalid"},
	{"events with both cursors", "GET /rooms/r/events?after=1&since=all", "", "", 400, "cursor_invalid"},
	{"events with a bad id", "GET /rooms/r/events", "Last-Event-ID: abc", "", 400, "cursor_invalid"},
	{"events with a good id and a bad cursor", "GET /rooms/r/events?since=x", "Last-Event-ID: 1", "", 400, "cursor_invalid"},
	{"events with a bad escape", "GET /rooms/r/events?since=%zz", "", "", 400, "query_invalid"},
	{"lines since a word", "GET /rooms/r/json?since=x", "", "", 400, "cursor_invalid"},
	{"raw since a word", "GET /rooms/r/raw?since=x", "", "", 400, "cursor_invalid"},
	{"post to a stream", "POST /rooms/r/events", "", "", 405, "method_not_allowed"},
	{"session with a cursor in the URL", "GET /ws?since=1", handshake + "|Sec-WebSocket-Protocol: raft-chat.v1", "", 400, "cursor_invalid"},
	{"firehose after a number", "GET /ws?since=x", handshake, "", 400, "cursor_invalid"},
	{"events of 1001 rooms", "GET /rooms/r" + strings.Repeat(",r", 1000) + "/events", "", "", 400, "limit_invalid"},
}

// handshake are the headers of a proper WebSocket handshake.
const handshake = "Connection: keep-alive, Upgrade|Upgrade: WebSocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

func TestRefusals(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "ann", "here")
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			n := *n
			n.t = t
			var b strings.Builder
			fmt.Fprintf(&b, "%s HTTP/1.1\r\nHost: %s\r\n", test.request, n.address)
			if !strings.Contains(test.header, "Connection:") {
				b.WriteString("Connection: close\r\n")
			}
			for line := range strings.SplitSeq(test.header, "|") {
				if line != "" {
					b.WriteString(line + "\r\n")
				}
			}
			if !strings.Contains(test.header, "Content-Length:") {
				fmt.Fprintf(&b, "Content-Length: %d\r\n", len(test.body))
			}
			b.WriteString("\r\n" + test.body)
			got := n.raw(b.String())
			status, code, _ := problemIn(t, got)
			if status != test.status || code != test.code {
				t.Errorf("got %d %s, want %d %s: %s", status, code, test.status, test.code, got.body)
			}
			if got.header.Get("X-Request-Id") == "" || got.header.Get("X-Raft-Chat-Node") != "node1" {
				t.Errorf("headers of every answer are missing: %v", got.header)
			}
			if status == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	// Nothing of it was stored.
	if got := n.do("GET", "/rooms", ""); got.body != "[\"r\"]\n" {
		t.Errorf("rooms are %s", got.body)
	}
	if got := n.do("GET", "/rooms/r?after=1", ""); got.body != "[]\n" {
		t.Errorf("later messages are %s", got.body)
	}
	n.cluster.set(func(c *fakeCluster) {
		if len(c.calls) > 0 {
			t.Errorf("the cluster was asked for %q", c.calls)
		}
	})
}
