// Package principals is xos-principals, sshd's AuthorizedPrincipalsCommand for
// grid users: it asks the session service which principal the certificate
// shown must name, and prints that, or nothing. Whatever goes wrong, nobody is
// let in. sshd runs it twice for who has no session on the machine yet, and pads
// what it takes, so that it is C (build.sh builds it, and it needs nothing but libc): a Go
// program starts in 5 ms, this in 1.
//
//	AuthorizedPrincipalsCommand /usr/libexec/xos/xos-principals %u %t %k
//
// It tells the system's log why it refuses, since sshd drops what is printed
// on standard error: a refusal for information, and as an error what an
// administrator has to mend before anyone can log in.
//
// Exit status: 0 with the principal printed, 1 refused, 64 wrong arguments.
package principals
