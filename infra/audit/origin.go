package audit

import "net/netip"

// Host is the origin of what comes from a remote host, of which at is the address,
// with a port or without, or a name. An IPv6 host has a /64 to choose addresses
// from, and any a port.
func Host(at string) Origin {
	addr, err := netip.ParseAddr(at)
	if with, bad := netip.ParseAddrPort(at); bad == nil {
		addr, err = with.Addr(), nil
	}
	if err != nil {
		return Origin{Name: cut(at)}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		return Origin{Name: netip.PrefixFrom(addr, 64).Masked().String()}
	}
	return Origin{Name: addr.String()}
}
