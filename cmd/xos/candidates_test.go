package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

// completed is what the shell is offered, and whether files are besides.
func completed(t *testing.T, args ...string) (words []string, files bool) {
	t.Helper()
	root := newRootCommand()
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(&strings.Builder{})
	root.SetArgs(append([]string{cobra.ShellCompNoDescRequestCmd}, args...))
	if err := root.Execute(); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	words = strings.Fields(out.String())
	last := len(words) - 1
	return words[:last], words[last] != ":4"
}

// Who has credentials is offered their VOs and accounts, away from the grid too.
func TestCompletion(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"alice@physics", "al@physics", "alice@chemistry", "trust", "not an@account"} {
		if err := os.MkdirAll(filepath.Join(home, ".xos", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	vos := []string{"chemistry", "physics"}
	for _, tc := range []struct {
		line  string // a word after the last space is begun
		want  []string
		files bool
	}{
		{"vo isolation show ", vos, false},
		{"vo isolation show ph", []string{"physics"}, false},
		{"vo isolation show physics ", nil, false},
		{"vo isolation set ", vos, false},
		{"vo isolation set physics ", nil, true},
		{"vo isolation check ", nil, true},
		{"vo create ", nil, false},
		{"vo delete c", []string{"chemistry"}, false},
		{"vo set-policy ", vos, false},
		{"vo set-policy physics ", nil, true},
		{"vo set-offline ", vos, false},
		{"vo set-removal ", vos, false},
		{"vo set-removal physics ", []string{"end", "finish", "freeze"}, false},
		{"vo member list ", vos, false},
		{"vo member add ", vos, false},
		{"vo member remove physics ", nil, false},
		{"explain alice@", []string{"alice@chemistry", "alice@physics"}, false},
		{"explain user al", []string{"al@physics", "alice@chemistry", "alice@physics"}, false},
		{"explain cert ", nil, true},
		{"explain login ", nil, false},
		{"guard explain ", nil, false},
		{"guard status ", nil, false},
	} {
		if got, files := completed(t, strings.Split(tc.line, " ")...); !cmp.Equal(got, tc.want) && len(got)+len(tc.want) > 0 || files != tc.files {
			t.Errorf("%q: %q, files: %v; want %q", tc.line, got, files, tc.want)
		}
	}
}

// Whoever does not answer costs its own answer and no time.
func TestCompletionWaitsForNobody(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	silent := func(context.Context, []string) []string { <-never; return []string{"late"} }
	c := complete(&cobra.Command{}, known(silent, fixed("physics", "biology"), fixed("physics")))
	begin := time.Now()
	got, _ := c.ValidArgsFunction(c, nil, "")
	if took := time.Since(begin); took > completionTime+20*time.Millisecond || !cmp.Equal(got, []string{"biology", "physics"}) {
		t.Errorf("%q after %v", got, took)
	}
}

// grid is a core that lists.
type grid struct {
	xosv1connect.UnimplementedVOsHandler
}

func (*grid) ListVOs(context.Context, *connect.Request[xosv1.ListVOsRequest]) (*connect.Response[xosv1.ListVOsResponse], error) {
	return connect.NewResponse(&xosv1.ListVOsResponse{Vos: []*xosv1.VO{{Name: "physics"}, {Name: "empty"}}}), nil
}

func (*grid) ListUsers(context.Context, *connect.Request[xosv1.ListUsersRequest]) (*connect.Response[xosv1.ListUsersResponse], error) {
	return connect.NewResponse(&xosv1.ListUsersResponse{Users: []*xosv1.User{{Name: "alice", Vos: []string{"physics", "lab"}}, {Name: "bob"}}}), nil
}

func (g *grid) ListMembers(_ context.Context, req *connect.Request[xosv1.ListMembersRequest]) (*connect.Response[xosv1.ListMembersResponse], error) {
	if req.Msg.Vo != "physics" {
		return nil, xos.Errorf(xos.NotFound, "no VO %s", req.Msg.Vo)
	}
	return connect.NewResponse(&xosv1.ListMembersResponse{Members: []*xosv1.Attributes{{User: "alice", Vo: "physics"}}}), nil
}

// Root on the core is offered what the core knows, and nothing where it is away.
func TestCompletionOfTheCore(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "core.sock")
	l, err := rpc.ListenUnix(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewVOsHandler(&grid{}, rpc.ServerOptions(slog.New(slog.DiscardHandler))...))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- rpc.Serve(ctx, l, mux) }()
	client := xosv1connect.NewVOsClient(rpc.UnixClient(socket), rpc.UnixBase, rpc.ClientOptions()...)
	for what, c := range map[string]struct {
		list func(context.Context, xosv1connect.VOsClient, []string) []string
		vo   string
		want []string
	}{
		"VOs":                 {listVOs, "", []string{"physics", "empty"}},
		"users":               {listUsers, "", []string{"alice", "bob"}},
		"accounts":            {listAccounts, "", []string{"alice@physics", "alice@lab"}},
		"members":             {listMembers, "physics", []string{"alice"}},
		"members of no VO":    {listMembers, "nobodys", nil},
		"members of any kind": {listMembers, "", nil},
	} {
		var before []string
		if c.vo != "" {
			before = []string{c.vo}
		}
		if got := c.list(t.Context(), client, before); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := listVOs(t.Context(), client, nil); got != nil {
		t.Errorf("of no core: %q", got)
	}
}
