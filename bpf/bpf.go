// Package bpf has the BPF programs that keep VOs apart, with their loaders:
// Vonet for the network and for devices (level C), Lsm for the kernel's other
// checks (level A), and Account, which counts what is used and decides nothing.
// They have maps and no policy: what to put into those is nodeguard's decision.
//
// The programs are GPL-2.0, as the kernel asks of those that use its GPL-only
// helpers; the loaders are under the project's licence. The compiled objects
// are committed, so that building needs no clang; the tests compile them again
// and compare.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target amd64,arm64 -cc clang-14 -strip llvm-strip-14 -type xos_rule_key -type xos_rule -type xos_question -type xos_aim -type xos_surface -type xos_rule_kind -type xos_count -type xos_program -type xos_denial -type xos_telling -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu" Vonet vonet.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target amd64,arm64 -cc clang-14 -strip llvm-strip-14 -type xos_cgroup -type xos_tally -type xos_hook -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu" Lsm lsm.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target amd64,arm64 -cc clang-14 -strip llvm-strip-14 -type xos_who -type xos_used -type xos_kind -type xos_place -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -I/usr/include/x86_64-linux-gnu" Account account.c
