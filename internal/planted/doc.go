// Package planted proves that the tests of this project can fail: it plants one
// bug at a time into the code and looks whether a check notices.
//
// A bug is a replacement of a few lines of one file. It is compiled in with the
// go command's -overlay, so that neither the repository nor any other build
// holds it; there is no switch that a release could contain. A replacement whose
// lines are no longer there is an error: the bug has to be planted anew.
//
// Most bugs are looked for by the simulator, seed by seed from 1 on. The others
// concern what it does not run (real files, goroutines), and name the tests.
package planted
