// Package strangers does to a node's peer port what anybody can who reaches it
// and knows the cluster's id, the members' ids and their addresses, but holds no
// member's address: every kind of request and of half a request.
//
// Contract. Send returns when the node has answered, or has closed the
// connection, or a second has passed; the answer is not looked at. Connections
// that a kind leaves open are closed by Close. All methods may be called
// concurrently.
package strangers
