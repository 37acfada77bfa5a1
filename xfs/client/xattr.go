package client

import (
	"context"

	"github.com/xtreemos/xos/xfs"
)

// Getxattr gives an extended attribute's value.
func (c *Client) Getxattr(ctx context.Context, ino xfs.Inode, name string) ([]byte, error) {
	return retry1(ctx, c, func(ctx context.Context) ([]byte, error) { return c.mrc.Getxattr(ctx, ino, name) })
}

// Setxattr sets an extended attribute; flags as setxattr(2)'s.
func (c *Client) Setxattr(ctx context.Context, ino xfs.Inode, name string, value []byte, flags int) error {
	req := c.request()
	return c.retry(ctx, func(ctx context.Context) error { return c.mrc.Setxattr(ctx, req, ino, name, value, flags) })
}

// Listxattr names the extended attributes.
func (c *Client) Listxattr(ctx context.Context, ino xfs.Inode) ([]string, error) {
	return retry1(ctx, c, func(ctx context.Context) ([]string, error) { return c.mrc.Listxattr(ctx, ino) })
}

// Removexattr removes an extended attribute.
func (c *Client) Removexattr(ctx context.Context, ino xfs.Inode, name string) error {
	req := c.request()
	return c.retry(ctx, func(ctx context.Context) error { return c.mrc.Removexattr(ctx, req, ino, name) })
}
