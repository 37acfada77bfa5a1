package userdb

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"time"

	"github.com/xtreemos/xos"
)

// The interfaces that are served, in varlink's own language.
var interfaces = map[string]string{
	"io.systemd.UserDatabase": `interface io.systemd.UserDatabase

method GetUserRecord(uid: ?int, userName: ?string, service: string) -> (record: object, incomplete: bool)
method GetGroupRecord(gid: ?int, groupName: ?string, service: string) -> (record: object, incomplete: bool)
method GetMemberships(userName: ?string, groupName: ?string, service: string) -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error EnumerationNotSupported()
`,
	"org.varlink.service": `interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound(interface: string)
error MethodNotFound(method: string)
error MethodNotImplemented(method: string)
error InvalidParameter(parameter: string)
error PermissionDenied()
error ExpectedMore()
`,
}

// describe answers what varlink has every service answer about itself.
func (s *Server) describe(c call) []reply {
	switch c.method {
	case "org.varlink.service.GetInfo":
		return []reply{{Parameters: map[string]any{"vendor": "XtreemOS", "product": "xos-userdb", "version": s.cfg.Version,
			"url": "https://github.com/xtreemos/xos", "interfaces": []string{"io.systemd.UserDatabase", "org.varlink.service"}}}}
	case "org.varlink.service.GetInterfaceDescription":
		var name string
		if json.Unmarshal(c.parameters["interface"], &name) != nil {
			return failed(badParameter, map[string]string{"parameter": "interface"})
		}
		text, ok := interfaces[name]
		if !ok {
			return failed(noInterface, map[string]string{"interface": name})
		}
		return []reply{{Parameters: map[string]string{"description": text}}}
	}
	dot := max(strings.LastIndexByte(c.method, '.'), 0)
	if _, ok := interfaces[c.method[:dot]]; !ok {
		return failed(noInterface, map[string]string{"interface": c.method[:dot]})
	}
	return failed(noMethod, map[string]string{"method": c.method})
}

// Alive asks the service at a socket what it is, and waits at most as long as
// ctx for it to say so.
func Alive(ctx context.Context, socket string) error {
	dial := net.Dialer{}
	c, err := dial.DialContext(ctx, "unix", socket)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "reaching the user database: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	if _, err := c.Write([]byte("{\"method\":\"org.varlink.service.GetInfo\"}\x00")); err != nil {
		return xos.Errorf(xos.Unavailable, "asking the user database: %w", err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return xos.Errorf(xos.Unavailable, "the user database does not answer: %w", err)
	}
	return nil
}
