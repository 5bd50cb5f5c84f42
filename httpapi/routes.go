package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/raft-chat/raft-chat/internal/webguard"
)

// handler answers a request, or returns a problem without having written anything.
type handler func(http.ResponseWriter, *http.Request) *problem

// route is one URL pattern with its methods. HEAD goes where GET does, OPTIONS is answered from the table.
type route struct {
	pattern           string
	get, post, delete handler
}

// routes is the table of everything that a node serves.
func (s *Server) routes() []route {
	return append(s.healthRoutes(),
		route{pattern: "/", get: s.getClient},
		route{pattern: "/{room}", get: s.redirectToRoom},
		route{pattern: "/rooms", get: s.getRooms},
		route{pattern: "/rooms/{room}", get: s.getMessages, post: s.postMessage},
		route{pattern: "/rooms/{room}/{seq}", get: s.getMessage},
		route{pattern: "/rooms/{room}/ws", get: s.guarded(s.getRoomFrames)},
		route{pattern: "/rooms/{room}/events", get: s.guarded(s.getRoomEvents)},
		route{pattern: "/rooms/{room}/json", get: s.guarded(s.getRoomLines)},
		route{pattern: "/rooms/{room}/raw", get: s.guarded(s.getRoomRaw)},
		route{pattern: "/ws", get: s.guarded(s.getSocket)},
		route{pattern: "/raft", get: s.getMembers},
		route{pattern: "/raft/leader", post: s.transferLeadership},
		route{pattern: "/raft/{id}", post: s.addMember, delete: s.removeMember},
		route{pattern: "/raft/{id}/promote", post: s.promoteMember},
		route{pattern: "/metrics", get: s.getMetrics},
		route{pattern: "/openapi.yaml", get: s.getOpenAPI},
		route{pattern: "/_/{asset}", get: s.getAsset},
	)
}

// healthRoutes is the part of the table that health_bind_addr serves too.
func (s *Server) healthRoutes() []route {
	return []route{
		{pattern: "/health", get: s.getHealth},
		{pattern: "/livez", get: s.getLive},
		{pattern: "/readyz", get: s.getReady},
	}
}

// guarded keeps pages of other sites from a read that costs more than its answer.
func (s *Server) guarded(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) *problem {
		if v := s.options.Guard.JudgeStream(r); v != nil {
			return newProblem(v.Code, v.Detail)
		}
		return next(w, r)
	}
}

// answerVerdict answers a request that does not come as far as the router.
func answerVerdict(w http.ResponseWriter, v *webguard.Verdict) {
	if v.Status == http.StatusNoContent {
		w.WriteHeader(v.Status)
		return
	}
	newProblem(v.Code, v.Detail).write(w)
}

// newRouter builds the handler of a table.
func (s *Server) newRouter(table []route) http.Handler { return tidyPaths(s.newMux(table)) }

// newMux builds the router of a table.
func (s *Server) newMux(table []route) chi.Router {
	router := chi.NewRouter()
	allowed := make(map[string]string, len(table)) // pattern -> Allow
	for _, rt := range table {
		allow := rt.allow()
		allowed[rt.pattern] = allow
		// Registered for every method, so that a method without a handler is answered here, with Allow.
		router.Handle(rt.pattern, rt.dispatch(s.metrics.route(rt.pattern), allow))
	}
	router.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		newProblem(codeNotFound, "nothing is served at this URL").write(w)
	})
	// chi comes here only with methods that it does not know at all.
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		pattern := router.Find(chi.NewRouteContext(), http.MethodGet, routingPath(r))
		allow, ok := allowed[pattern]
		if !ok {
			newProblem(codeNotFound, "nothing is served at this URL").write(w)
			return
		}
		refuseMethod(w, r, allow)
	})
	return router
}

// allow is the value of the Allow header.
func (rt *route) allow() string {
	methods := make([]string, 0, 5)
	if rt.get != nil {
		methods = append(methods, http.MethodGet, http.MethodHead)
	}
	if rt.post != nil {
		methods = append(methods, http.MethodPost)
	}
	if rt.delete != nil {
		methods = append(methods, http.MethodDelete)
	}
	return strings.Join(append(methods, http.MethodOptions), ", ")
}

// dispatch picks the handler by method.
func (rt *route) dispatch(counters *routeCounters, allow string) http.HandlerFunc {
	get, post, remove := rt.get, rt.post, rt.delete
	return func(w http.ResponseWriter, r *http.Request) {
		if res, ok := w.(*response); ok {
			res.route = counters
		}
		var handle handler
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			handle = get
		case http.MethodPost:
			handle = post
		case http.MethodDelete:
			handle = remove
		case http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if handle == nil {
			refuseMethod(w, r, allow)
			return
		}
		if p := handle(w, r); p != nil {
			p.write(w)
		}
	}
}

// refuseMethod answers 405.
func refuseMethod(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	newProblem(codeMethodNotAllowed, headerText(r.Method)+" is not possible here; "+allow+" are").write(w)
}

// routingPath is the path that chi matches.
func routingPath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// tidyPaths answers paths with empty segments before the router could take one for an empty parameter: a single slash
// at the end is redirected away, anything else is not found.
func tidyPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := routingPath(r)
		atEnd := len(path) > 1 && path[len(path)-1] == '/'
		if !atEnd && !strings.Contains(path, "//") {
			next.ServeHTTP(w, r)
			return
		}
		reading := r.Method == http.MethodGet || r.Method == http.MethodHead
		if !atEnd || !reading || path == "/_/" || strings.Contains(path, "//") {
			newProblem(codeNotFound, "nothing is served at a URL with an empty path segment").write(w)
			return
		}
		// One leading slash and no double one: the target cannot be read as another host.
		target := strings.TrimSuffix(r.URL.EscapedPath(), "/")
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}
