// Package testbed boots a grid of Debian machines on one host: each node is
// a systemd-nspawn container with systemd as process 1, a root file system of
// its own (an overlay over one cached base) and a network address of its own.
// It is what end-to-end tests and "make demo" run on.
//
// # What holds a grid together
//
// Three things, each found again by the grid's name alone, so that a run that
// was interrupted anywhere is cleaned up by the next one:
//
//   - a cgroup, xtreemos-testbed/NAME in the cgroup2 hierarchy. Every process
//     of the grid lives below it; cgroup.kill ends them all at once;
//   - network namespaces, one for the switch and one a node;
//   - a directory with the nodes' writable layers and the grid's state file.
//
// Mounts are made in a private mount namespace of each node's supervisor and
// vanish with it. Nothing is registered with the host's systemd or machined,
// and the host's own network gets no interface, address or rule.
//
// Everything here needs root, Linux with cgroup2 mounted, and the packages of
// "make setup".
package testbed
