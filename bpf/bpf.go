// Package bpf has the BPF programs that keep VOs apart, with their loaders.
// It has maps and no policy: what to put into them is nodeguard's decision.
//
// The programs are GPL-2.0, as the kernel asks of those that use its GPL-only
// helpers; the loaders are under the project's licence. The compiled objects
// are committed, so that building needs no clang.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target amd64,arm64 -cflags "-O2 -g -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu" Vonet vonet.c
