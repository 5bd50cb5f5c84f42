// Package peeraddr says what may name a member of the cluster: its id and the URL
// that others reach it at. Flags, files, APIs, commands and consensus all ask
// here, so that what one of them takes all of them take, in the same text.
//
// Contract. Functions of their arguments alone, no goroutines, nothing of ours
// is imported. What they say may change with Go's version: nothing that is
// applied from the log may ask them; it is judged before it is proposed.
package peeraddr
