// Package budget bounds, in bytes, what clients and peers can make a node hold.
//
// A node has one [Budget]. Each use of memory that somebody else controls has an
// [Account] in it, with a share of its own, so that one kind of client cannot
// starve the others; what members need of each other is set aside. Whoever is
// about to hold memory for somebody takes a [Lease] and grows it first. What the
// budget refuses is refused to the client, or its stream is closed with its
// cursor: nobody waits here, because what is waited for may be held by somebody
// who never lets go.
//
// An open connection is charged [PerConnection], which also covers the first
// [Free] bytes of what it asks for. So a small request is served as long as its
// connection is, however much others hold.
//
// Imports nothing of ours, and every package may import it.
package budget
