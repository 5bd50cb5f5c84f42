// Package webguard decides which requests that a browser sends on behalf of a web page may reach a node. A node believes
// whoever can connect to it, and every page that its user opens can make his browser connect: by a plain request to the
// node's address (CSRF), or under a name of the page's own that suddenly resolves to it (DNS rebinding).
//
// A [Guard] is the only place that looks at Host, Origin and Sec-Fetch-Site. All listeners that speak HTTP ask it before
// anything else, for every method and every path:
//
//   - Host must be an IP literal, a localhost name, a name that this node tells others, or an allowed one. A page can
//     only come from another name if that name was made to resolve to this node: 421. A name of one label passes as
//     well, but not for browsers.
//   - A request that changes state or opens a stream must not come from a page of another origin, unless that origin is
//     allowed: 403. Plain reads are answered; the browser keeps the answer from the page.
//   - A page of an allowed origin gets the CORS headers, on every answer, so that it can read it.
//
// Programs other than browsers send neither Origin nor Sec-Fetch-Site and are judged by Host alone. What proxies add
// (X-Forwarded-Host and its like) is not believed: a page can send it too.
//
// A refusal is logged with its remedy, once an hour for an origin or a host: behind a proxy that changes Host the
// browser tells nobody why.
package webguard
