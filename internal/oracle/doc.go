// Package oracle is a log, kept outside of a cluster, of what its clients sent,
// were answered and saw, and a judge of it. Tests on simulated, in-process and
// real clusters tell a [History] everything that happens, at the end also what
// each node stores, and ask [History.Check] which of these rules were broken:
//
//   - O1: every acknowledged message is on every replica exactly once, as it was
//     acknowledged. Seq counts 1, 2, 3 … in a room, ID over all rooms; PostedUS
//     never decreases along ID.
//   - O2: every subscriber saw each of its rooms as 1, 2, 3 … to the end, with
//     ID strictly ascending, and the content that everybody else saw.
//   - O3: nothing was acknowledged, delivered, read or stored that was never
//     sent, or of which every attempt was refused.
//   - O4: one room and client message id has one Seq, whoever tells of it.
//   - O5: replicas that have applied the same entries have the same state.
//   - O6: posts and linearizable reads of a room are linearizable: each read
//     answers the newest Seq of one moment between its beginning and its end.
//
// # Contract
//
// Send comes before the first attempt of a message leaves, Acknowledged after
// its answer has come, and Read and Returned likewise; the order of these calls
// is the order that O6 goes by, which is at least as strict as that of the
// dates. Everything that is in the cluster must have been told: a message that
// was posted behind the back of the history breaks O3.
//
// Who does not learn a message's ID, PostedUS or ClientID leaves it zero; the
// rest is judged nevertheless. Only replicas must have all of it. What was told
// is not to be changed afterwards.
//
// A History reads no clock but the one it was given, keeps no goroutine beyond a
// call, and says the same about the same calls, in the same order. All methods of all
// types here may be called concurrently.
package oracle
