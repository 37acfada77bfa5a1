// Package fuzz holds the fuzzers of the modules that live in other programs'
// processes: in C (testdata), by libFuzzer under the address and undefined behaviour
// sanitizers, through the modules' outermost functions. reply.c gives them what
// the session service may send, snapshot.c what a VO's snapshot may hold;
// world.c stands for the system around them.
//
// They share one corpus with Go's fuzzers of the same formats (FuzzReply and
// FuzzSnapshotFile of session/wire, FuzzOpenReply of pam_xos): session/wire/testdata/reply has all
// that came on one connection, .../snapshot whole files, a raw input a file; a head and
// its base are one input, one after the other (TestPairs of session/wire writes some).
package fuzz
