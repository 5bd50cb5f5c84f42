// Package web is the browser client: one page, one style sheet and a few ES modules, embedded as they are and served
// without a build step. It has no state and no goroutines.
//
// The page is served at / and at every /rooms/{room}, its files under /_/. It runs under a content security policy
// without inline script or style, puts text from others into the page as text nodes only, and links http, https and
// mailto and nothing else.
//
//	app.js     wiring: routes, user actions, which state update follows which event
//	client.js  transport: REST calls and the socket, an EventTarget; reconnects and resumes by itself
//	state.js   the state and its updates: pure functions, no DOM, no network
//	view.js    the DOM: draws a state
//	scroll.js  keeps the reader's place when messages are added above or below
//	text.js    splits a message into text and links
package web
