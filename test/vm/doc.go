// Package vm boots virtual machines with Debian's own kernels under QEMU, for
// what a container cannot show: BPF LSM programs and cgroup controllers. A
// machine is Debian 13, made from the same base root as the testbed's nodes,
// with the packages of this tree installed; its kernel is Debian 13's or
// Debian 12's.
//
// No hardware virtualisation is needed: QEMU translates, a boot takes a minute
// on two processors, and everything inside is about ten times slower than
// outside. So boots on one host wait for one another, and a test should boot
// once and do all it has to do.
//
// # How a machine is reached
//
// Package guest is a program of ours that runs in it as a service, on virtio
// serial ports whose other ends are sockets in a directory of root's. The
// machine's own network, users and sshd have no part in it, and nobody inside
// but root can open the ports. Over a port HTTP/2 is spoken, so that many
// commands may run at once, each with its standard streams.
//
// # What is left behind
//
// Nothing. The root file system is a cached image that is opened for reading;
// what the machine writes goes to a file without a name. QEMU dies with the
// thread that started it, however that ends; a detached machine is found by its
// name and ended by Stop.
package vm
