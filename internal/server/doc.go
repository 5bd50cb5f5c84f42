// Package server is the program as a struct: it wires the consensus node, the
// store, the chat service and the HTTP front into one node, and owns the order
// in which they start and stop. The command and the tests start it alike.
//
// Start: data directory and log first, then the store, then the listeners; a
// node answers requests from Open's return on, also while it has no leader.
//
// Stop: the leadership is handed over while requests are still served, then
// streams are closed and requests drained on all listeners at once, then the
// service, the node and the store are closed, in that order, so that each still
// has what it stands on. Whoever is not done in time is cut off.
//
// Connections of all listeners pass one gate, which charges them to the node's
// memory budget and leaves open files for the store and the members.
package server
