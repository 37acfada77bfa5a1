package dir

import (
	"context"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// handler serves Directory.
type handler struct {
	*Service
	verify *credential.Verifier
}

// Handler gives the directory's service, with callers verified by v.
func (s *Service) Handler(v *credential.Verifier) xosv1connect.DirectoryHandler {
	return handler{s, v}
}

// admin refuses everybody but root on this machine.
func admin(ctx context.Context) error {
	if p := rpc.PeerFrom(ctx); !p.Unix || p.UID != 0 {
		return xos.Errorf(xos.Permission, "only administrators may do this").WithHint("run it as root on the core's machine")
	}
	return nil
}

func (h handler) CreateVolume(ctx context.Context, req *connect.Request[xosv1.CreateVolumeRequest]) (*connect.Response[xosv1.CreateVolumeResponse], error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	owner, err := xos.ParseAccount(req.Msg.Owner)
	if err != nil {
		return nil, err
	}
	rec, err := h.create(ctx, xos.VolumeID(req.Msg.Name), owner, req.Msg.ObjectSize, false)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.CreateVolumeResponse{Volume: h.wire(req.Msg.Name, rec)}), nil
}

func (h handler) DeleteVolume(ctx context.Context, req *connect.Request[xosv1.DeleteVolumeRequest]) (*connect.Response[xosv1.DeleteVolumeResponse], error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	return nil, xos.Errorf(xos.NotSupported, "volumes cannot be deleted yet: their data would have to be found and deleted on all storage").
		WithHint("delete the files in it")
}

// ListVolumes gives administrators and machines all volumes, and a user her own.
func (h handler) ListVolumes(ctx context.Context, req *connect.Request[xosv1.ListVolumesRequest]) (*connect.Response[xosv1.ListVolumesResponse], error) {
	owner := ""
	if admin(ctx) != nil {
		chain := rpc.PeerFrom(ctx).Chain
		if _, err := h.verify.Machine(chain); err != nil {
			id, err := h.verify.X509(chain)
			if err != nil {
				return nil, err
			}
			owner = id.Account.String()
		}
	}
	resp := &xosv1.ListVolumesResponse{}
	err := h.db.View(ctx, func(t kv.Txn) error {
		resp.Volumes = nil
		return each(t, volumePrefix, func(name string, r volumeRecord) error {
			if (owner == "" || owner == r.Owner) && (req.Msg.Name == "" || req.Msg.Name == name) {
				resp.Volumes = append(resp.Volumes, h.wire(name, r))
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

func (h handler) AnnounceStorage(ctx context.Context, req *connect.Request[xosv1.AnnounceStorageRequest]) (*connect.Response[xosv1.AnnounceStorageResponse], error) {
	m, err := h.verify.Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return nil, err
	}
	if m.Service != vom.ServiceStorage {
		return nil, xos.Errorf(xos.Permission, "service %q is no storage", m.Service)
	}
	r := req.Msg
	if err := h.Announce(ctx, r.Id, r.Address, r.Total, r.Free, m.Node); err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.AnnounceStorageResponse{CapabilityKey: h.cfg.Key}), nil
}

func (h handler) ListStorage(ctx context.Context, _ *connect.Request[xosv1.ListStorageRequest]) (*connect.Response[xosv1.ListStorageResponse], error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	resp := &xosv1.ListStorageResponse{}
	err := h.db.View(ctx, func(t kv.Txn) error {
		resp.Storage = nil
		return each(t, osdPrefix, func(id string, o osdRecord) error {
			resp.Storage = append(resp.Storage, &xosv1.Storage{Id: id, Address: o.Address, Total: o.Total, Free: o.Free,
				Seen: timestamppb.New(o.Seen), Node: string(o.Node)})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

func (h handler) wire(name string, r volumeRecord) *xosv1.Volume {
	_, vo, _ := strings.Cut(r.Owner, "@")
	return &xosv1.Volume{Name: name, Owner: r.Owner, Vo: vo, ObjectSize: r.Object, Created: timestamppb.New(r.Created), Mrc: h.cfg.MRC}
}
