// Package subidxos is libsubid_xos.so, the module by which newuidmap(1),
// newgidmap(1) and all others who use shadow's libsubid learn of grid users'
// subordinate ids: those that a container of hers may use beside her own. It is
// C (build.sh builds it, and it needs nothing but libc), and is asked where
// nsswitch.conf says so:
//
//	subid: xos
//
// libsubid takes one source only, so the module answers for local users, too,
// from /etc/subuid and /etc/subgid, as libsubid itself would. What these give
// away of the grid's ids is nobody's, and neither is a range of the grid's that
// they give away as well.
//
// For grid users it asks xos-node, which tells root of all, and a user of her
// own VO. Without xos-node grid users have no subordinate ids: newuidmap refuses,
// and containers that run go on.
package subidxos
