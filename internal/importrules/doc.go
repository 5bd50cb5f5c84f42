// Package importrules checks that imports inside this module point one way:
// from the command to the fronts (HTTP, gRPC, web), from these to the chat
// domain, and from the command's wiring to consensus, which knows nothing of
// chat. It holds nothing but the rules and their test.
//
// Contract. The rules are a function from one import to a verdict, so they are
// tested by themselves as well as on the module's source files. There are no
// goroutines.
package importrules
