package storetest

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/cellarstore/cellar"
)

// malformedDigests are what a client may send in place of a digest.
var malformedDigests = []digest.Digest{
	"", ":", "sha256", "sha256:", ":" + digest.Digest(hexOf('a', 64)), "sha256:../../../etc/passwd",
	"sha256:" + digest.Digest(hexOf('A', 64)), "sha256:" + digest.Digest(hexOf('a', 63)), "sha256:" + digest.Digest(hexOf('a', 65)),
	"sha512:" + digest.Digest(hexOf('a', 64)), "sha384:" + digest.Digest(hexOf('a', 128)), "SHA256:" + digest.Digest(hexOf('a', 64)),
	"md5:900150983cd24fb0d6963f7d28e17f72", "blake3:" + digest.Digest(hexOf('a', 64)), "sha1:" + digest.Digest(hexOf('a', 40)),
	"sha256:" + digest.Digest(hexOf('a', 63)) + "\x00", "sha256\x00:" + digest.Digest(hexOf('a', 64)), "\x00",
	"sha256:" + digest.Digest(hexOf('g', 64)), " sha256:" + digest.Digest(hexOf('a', 64)), "sha256:" + digest.Digest(hexOf('a', 64)) + "\n",
	"sha256:sha256:" + digest.Digest(hexOf('a', 64)), "sha256:" + digest.Digest(hexOf('a', 31)) + "/" + digest.Digest(hexOf('a', 32)),
	digest.Digest(strings.Repeat("x", 1<<20)), "sha256:" + digest.Digest(strings.Repeat("ü", 32)),
}

func hexOf(c byte, n int) string { return strings.Repeat(string(c), n) }

// digestMethods are the calls that take a digest.
var digestMethods = map[string]func(ctx context.Context, s cellar.Store, dgst digest.Digest) error{
	"Info": func(ctx context.Context, s cellar.Store, dgst digest.Digest) error {
		_, err := s.Info(ctx, dgst)
		return err
	},
	"ReaderAt": func(ctx context.Context, s cellar.Store, dgst digest.Digest) error {
		_, err := s.ReaderAt(ctx, describe(dgst, 0))
		return err
	},
	"Update": func(ctx context.Context, s cellar.Store, dgst digest.Digest) error {
		_, err := s.Update(ctx, cellar.Info{Digest: dgst, Labels: map[string]string{"a": "1"}}, "labels.a")
		return err
	},
	"Delete": func(ctx context.Context, s cellar.Store, dgst digest.Digest) error { return s.Delete(ctx, dgst) },
}

// methods are all the calls that take a context. dgst is there, and so is the
// ingestion "left".
func methods(dgst digest.Digest) map[string]func(ctx context.Context, s cellar.Store) error {
	all := map[string]func(ctx context.Context, s cellar.Store) error{
		"Walk": func(ctx context.Context, s cellar.Store) error {
			return s.Walk(ctx, func(cellar.Info) error { return nil })
		},
		"Status": func(ctx context.Context, s cellar.Store) error {
			_, err := s.Status(ctx, "left")
			return err
		},
		"ListStatuses": func(ctx context.Context, s cellar.Store) error {
			_, err := s.ListStatuses(ctx)
			return err
		},
		"Abort": func(ctx context.Context, s cellar.Store) error { return s.Abort(ctx, "left") },
		"Writer": func(ctx context.Context, s cellar.Store) error {
			return openAndClose(ctx, s, cellar.WithRef("new"))
		},
		"Writer of what is there": func(ctx context.Context, s cellar.Store) error {
			return openAndClose(ctx, s, cellar.WithRef("new"), withDigest(dgst))
		},
		"Writer that resumes": func(ctx context.Context, s cellar.Store) error {
			return openAndClose(ctx, s, cellar.WithRef("left"), withSize(1))
		},
	}
	for name, call := range digestMethods {
		all[name] = func(ctx context.Context, s cellar.Store) error { return call(ctx, s, dgst) }
	}
	return all
}

func openAndClose(ctx context.Context, s cellar.Store, opts ...cellar.WriterOpt) error {
	w, err := s.Writer(ctx, opts...)
	if err != nil {
		return err
	}
	return w.Close()
}

var inputPromises = []promise{
	{"a malformed digest is InvalidArgument in every method and reaches nothing", func(e *env) {
		e.put([]byte("content"))
		for _, dgst := range malformedDigests {
			for name, call := range digestMethods {
				if name == "Update" && !e.impl.Labels {
					continue // FailedPrecondition for any digest
				}
				require.Equal(e, []error{errdefs.ErrInvalidArgument}, classesOf(call(e.ctx, e.store, dgst)), "%s of %.80q", name, dgst)
			}
			if dgst != "" {
				e.openErr(errdefs.ErrInvalidArgument, "ref", withDigest(dgst))
			}
		}
		e.requireNoIngestion("ref")
		require.Len(e, walk(e, e.ctx, e.store), 1)
	}},
	{"a context that is done is returned by every method, and nothing changes", func(e *env) {
		dgst := e.put([]byte("content"))
		e.leave("left", []byte("left"))
		content, ingestions := walk(e, e.ctx, e.store), e.statuses()
		cancelled, cancel := context.WithCancel(e.ctx)
		cancel()
		expired, cancel := context.WithTimeout(e.ctx, -1)
		defer cancel()
		for name, call := range methods(dgst) {
			require.Equal(e, []error{context.Canceled}, classesOf(call(cancelled, e.store)), name)
			require.Equal(e, []error{context.DeadlineExceeded}, classesOf(call(expired, e.store)), name)
		}
		require.Equal(e, content, walk(e, e.ctx, e.store))
		require.Equal(e, ingestions, e.statuses())
		e.requireNoIngestion("new")
		e.requireLeft("left", []byte("left"))
	}},
}
