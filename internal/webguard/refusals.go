package webguard

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// refusalPeriod is how long the same refusal is not told again.
	refusalPeriod = time.Hour
	// maxRefusals bounds the lines in such a period: who is refused chooses the names.
	maxRefusals = 64
	// maxShown bounds what is shown of a header, in bytes.
	maxShown = 200
)

// refusalLog tells an operator what is refused and what he can do, but not at every request.
type refusalLog struct {
	logger *slog.Logger

	mu   sync.Mutex // guards the rest
	told map[refusal]bool
	from time.Time // when told began
}

// refusal is what counts as the same.
type refusal struct{ kind, value string }

// refused logs that a request was refused because of value, its host or its origin.
func (l *refusalLog) refused(kind, value string, r *http.Request, why, remedy string) {
	if !l.isNew(refusal{kind, cut(value)}) {
		return
	}
	l.logger.Warn("request refused: "+why, slog.String("origin", cut(r.Header.Get("Origin"))), slog.String("host", cut(r.Host)),
		slog.String("sec_fetch_site", cut(r.Header.Get("Sec-Fetch-Site"))),
		slog.String("method", cut(r.Method)), slog.String("path", cut(r.URL.Path)), slog.String("client", r.RemoteAddr),
		slog.String("remedy", remedy))
}

func (l *refusalLog) isNew(one refusal) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.told == nil || now.Sub(l.from) >= refusalPeriod {
		l.told, l.from = make(map[refusal]bool), now
	}
	if l.told[one] || len(l.told) >= maxRefusals {
		return false
	}
	l.told[one] = true
	return true
}

// cut shortens what a client chose.
func cut(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return text[:maxShown] + "…"
}
