// Package workload is what clients of a cluster do while tests disturb it, over
// HTTP and with everything told to an oracle.History: writers that post each
// message again and again, to one node after the other, until it is
// acknowledged; readers of linearizable pages; followers of streams in several
// forms, which go on from their cursor at another node whenever a stream ends;
// and a collector of what each node stores at the end.
//
// A test starts a [Workload], lets things happen, and calls in this order
// [Workload.Stop], [Workload.Settle] and the history's Check. It may use a
// [Client] and the [Stream] forms by themselves.
//
// # Contract
//
// What an outage explains (no connection, no answer in time, 503, 429, an
// answer or a stream that breaks off) is overcome by trying elsewhere. Any other
// refusal, and what makes no sense, is an error of the Workload: [Workload.Err].
// What is wrong with the messages is for the history to say.
//
// A History takes the messages of any number of Workloads if their names
// differ. Rooms of which retention drops everything that is left leave forms
// that cannot tell of it waiting; follow such rooms by events or session.
//
// # Goroutines
//
// One for each writer, reader and follower, and no more requests at a time than
// there are of them. Stop ends the writers and readers, Settle or Close the
// followers; Close ends all and waits. A Client and a Stream have none, but for
// those of net/http.
package workload
