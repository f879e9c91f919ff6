package leases_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar/leases"
)

const dgst = "sha256:1e1af4aed795b136496996c687da9894e88ef2996ac1b636ef92db240239fec6"

func TestContext(t *testing.T) {
	// A context carries the last lease it was given, an empty id too.
	_, ok := leases.FromContext(t.Context())
	require.False(t, ok)
	ctx := leases.WithLease(t.Context(), "a")
	inner := leases.WithLease(ctx, "")
	id, ok := leases.FromContext(ctx)
	require.True(t, ok)
	require.Equal(t, "a", id)
	id, ok = leases.FromContext(inner)
	require.True(t, ok, "a caller that lost its id must not write unprotected")
	require.Empty(t, id)
}

func TestValidateID(t *testing.T) {
	// Ids are 1 to MaxIDLength arbitrary bytes.
	for _, id := range []string{"a", "lease 2/x", "\x00\xff", strings.Repeat("a", leases.MaxIDLength), leases.NewID()} {
		require.NoError(t, leases.ValidateID(id))
	}
	for _, id := range []string{"", strings.Repeat("a", leases.MaxIDLength+1)} {
		err := leases.ValidateID(id)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
		require.Less(t, len(err.Error()), 300)
	}
}

func TestNewID(t *testing.T) {
	// Random ids differ, and are long enough for 128 bits.
	seen := map[string]bool{}
	for range 1000 {
		id := leases.NewID()
		require.GreaterOrEqual(t, len(id), 26, "26 of 32 letters hold 130 bits")
		require.Equal(t, strings.ToLower(id), id)
		require.False(t, seen[id])
		seen[id] = true
	}
}

func TestExpired(t *testing.T) {
	// A lease ends strictly after its expiry; without one never.
	at := time.Unix(1000, 0)
	lease := leases.Lease{ExpiresAt: at}
	require.False(t, lease.Expired(at.Add(-1)))
	require.False(t, lease.Expired(at))
	require.True(t, lease.Expired(at.Add(1)))
	require.False(t, leases.Lease{}.Expired(at))
}

func TestResourceValidate(t *testing.T) {
	// Known types pass with an id of theirs; others are refused by class.
	for _, tc := range []struct {
		kind, id string
		want     error
	}{
		{leases.Content, dgst, nil},
		{leases.Ingests, "a ref/with anything\x00", nil},
		{leases.Ingests, strings.Repeat("r", 4096), nil},
		{leases.Images, "docker.io/library/x:y", nil},
		{"snapshots/native", "x", nil},
		{leases.Content, "x", errdefs.ErrInvalidArgument},
		{leases.Content, "", errdefs.ErrInvalidArgument},
		{leases.Content, dgst + "0", errdefs.ErrInvalidArgument},
		{leases.Content, strings.Repeat("x", 1<<20), errdefs.ErrInvalidArgument},
		{leases.Ingests, "", errdefs.ErrInvalidArgument},
		{leases.Ingests, strings.Repeat("r", 4097), errdefs.ErrInvalidArgument},
		{leases.Images, "", errdefs.ErrInvalidArgument},
		{"content/x", dgst, errdefs.ErrInvalidArgument},
		{"content/", dgst, errdefs.ErrInvalidArgument},
		{leases.Snapshots, "x", errdefs.ErrInvalidArgument},
		{"snapshots/", "x", errdefs.ErrInvalidArgument},
		{"snapshots/a/b", "x", errdefs.ErrInvalidArgument},
		{"snapshots/a\x00b", "x", errdefs.ErrInvalidArgument},
		{"snapshots/" + strings.Repeat("a", 4096), "x", nil},
		{"snapshots/" + strings.Repeat("a", 4097), "x", errdefs.ErrInvalidArgument},
		{"", "x", errdefs.ErrNotImplemented},
		{"containers", "x", errdefs.ErrNotImplemented},
		{"Content", dgst, errdefs.ErrNotImplemented},
	} {
		err := leases.Resource{Type: tc.kind, ID: tc.id}.Validate()
		require.ErrorIs(t, err, tc.want, "%q %.40q", tc.kind, tc.id)
		if tc.want != nil {
			require.Less(t, len(err.Error()), 500)
		}
	}
}

func TestSHA512Resource(t *testing.T) {
	// Content of every algorithm that a store takes can be held.
	for _, id := range []string{"sha384:" + strings.Repeat("a", 96), "sha512:" + strings.Repeat("a", 128)} {
		require.NoError(t, leases.Resource{Type: leases.Content, ID: id}.Validate())
	}
}

func TestCreateOptions(t *testing.T) {
	// Options add up in their order, and copy what they are given.
	at := time.Unix(1000, 0)
	given := map[string]string{"a": "1", "b": "2"}
	o, err := leases.NewCreateOptions(
		leases.WithID("x"), leases.WithTTL(time.Hour), leases.WithExpiry(at),
		leases.WithLabels(given), leases.WithLabels(map[string]string{"b": "3"}))
	require.NoError(t, err)
	require.Equal(t, leases.CreateOptions{ID: "x", ExpiresAt: at, Labels: map[string]string{"a": "1", "b": "3"}}, o)
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, given)

	o, err = leases.NewCreateOptions(leases.WithExpiry(at), leases.WithTTL(time.Hour))
	require.NoError(t, err)
	require.Equal(t, leases.CreateOptions{TTL: time.Hour}, o)

	o, err = leases.NewCreateOptions(leases.WithTTL(0))
	require.NoError(t, err)
	require.Negative(t, o.TTL, "no time to live is not the same as no expiry")

	_, err = leases.NewCreateOptions(leases.WithID(""))
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	own := errors.New("own")
	_, err = leases.NewCreateOptions(func(*leases.CreateOptions) error { return own })
	require.Equal(t, own, err, "the error of an option comes back as it is")
}

func TestDeleteOptions(t *testing.T) {
	// Nothing is asked for unless an option does.
	require.Equal(t, leases.DeleteOptions{}, leases.NewDeleteOptions())
	require.Equal(t, leases.DeleteOptions{Synchronous: true, IfExists: true},
		leases.NewDeleteOptions(leases.Synchronous(), leases.IfExists()))
}

func TestField(t *testing.T) {
	// Filters see id, times and labels; what is zero is not there.
	lease := leases.Lease{
		ID: "a", CreatedAt: time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
		Labels: map[string]string{"x": "1", "a.b": "2"},
	}
	for _, tc := range []struct {
		path []string
		want string
		ok   bool
	}{
		{[]string{"id"}, "a", true},
		{[]string{"createdat"}, "2030-01-02T02:04:05.000000006Z", true},
		{[]string{"expiresat"}, "", false},
		{[]string{"labels", "x"}, "1", true},
		{[]string{"labels", "a", "b"}, "2", true},
		{[]string{"labels", "y"}, "", false},
		{[]string{"labels"}, "", false},
		{[]string{"ID"}, "", false},
		{nil, "", false},
	} {
		value, ok := lease.Field(tc.path)
		require.Equal(t, tc.ok, ok, "path %q", tc.path)
		require.Equal(t, tc.want, value, "path %q", tc.path)
	}
	_, ok := leases.Lease{}.Field([]string{"id"})
	require.False(t, ok)

	at, ok := lease.FieldTime([]string{"createdat"})
	require.True(t, ok)
	require.True(t, at.Equal(lease.CreatedAt))
	for _, path := range [][]string{nil, {"id"}, {"expiresat"}, {"labels", "x"}} {
		_, ok = lease.FieldTime(path)
		require.False(t, ok, "path %q", path)
	}
}
