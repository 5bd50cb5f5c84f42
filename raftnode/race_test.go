//go:build race

package raftnode

// raced says that the race detector looks at every byte that is moved.
const raced = true
