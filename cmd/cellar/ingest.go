package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// ingestFlags is what the user says of the content.
type ingestFlags struct {
	ref    string
	expect string
	size   int64
	labels []string
	noRoot bool
	names  bool
	lease  string
}

const ingestLong = `Stores files, all files below folders, or the standard input, and prints the
digest of each on a line of its own. Content that the namespace has already is
fine: its digest is printed all the same, and a remark on the error stream.

What is stored is labelled containerd.io/gc.root, so that collections keep it
until "cellar rm". With --no-root they keep it only while other content refers to
it by a label, and for a few minutes, in which such a label can be set. With
--lease a lease keeps it, until that is deleted or ends, in place of the label.

An ingest that was interrupted goes on where it stopped when the same command
is given again: for a file by itself, as long as the file is unchanged; for the
standard input with --ref. The input then starts from its beginning again, what
was stored is skipped.`

func (a *app) ingestCommand() *cobra.Command {
	var f ingestFlags
	cmd := &cobra.Command{
		Use:   "ingest [PATH...|-]",
		Short: "Store files, folders or the standard input",
		Long:  ingestLong,
		Example: `  D=$(cellar ingest notes.txt)
  tar c . | cellar ingest --ref backup-today -
  cellar ingest --expect sha256:... --size 1234 --label team=blue image.tar`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ingest(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ref, "ref", "", "name of the ingestion, to continue it later; for one file or the standard input")
	flags.StringVar(&f.expect, "expect", "", "the digest that the content must have")
	flags.Int64Var(&f.size, "size", 0, "the size in bytes that the content must have")
	flags.StringArrayVar(&f.labels, "label", nil, "label KEY=VALUE of the content; may be repeated")
	flags.BoolVar(&f.noRoot, "no-root", false, "let collections remove the content once nothing refers to it")
	flags.StringVar(&f.lease, "lease", "", "the lease that keeps what is stored; implies --no-root")
	flags.BoolVar(&f.names, "names", false, "print each file's name after its digest")
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("lease", a.completeLeases)
	return cmd
}

// wish is what ingestFlags ask for, checked.
type wish struct {
	ref    string
	desc   ocispec.Descriptor
	labels map[string]string
}

// ingest does the verb's work: all that can be refused is refused before a
// store is opened, or made.
func (a *app) ingest(ctx context.Context, f ingestFlags, args []string) error {
	want, err := f.check()
	if err != nil {
		return err
	}
	sources, err := a.sources(args)
	if err != nil {
		return err
	}
	if len(sources) != 1 && (f.ref != "" || f.expect != "" || f.size != 0) {
		return &usageError{fmt.Errorf("--ref, --expect and --size speak of one file, not of %d", len(sources))}
	}
	create := mayCreate
	if f.lease != "" {
		create = mustExist // where there is no store there is no lease
	}
	return a.with(ctx, create, func(ctx context.Context, s *session) error {
		if err := s.useLease(ctx, f.lease); err != nil {
			return err
		}
		return a.ingestAll(ctx, s, sources, want, f.names)
	})
}

func (f ingestFlags) check() (wish, error) {
	want := wish{ref: f.ref, desc: ocispec.Descriptor{Digest: digest.Digest(f.expect), Size: f.size}}
	if f.size < 0 {
		return want, &usageError{fmt.Errorf("--size %d is negative", f.size)}
	}
	if f.expect != "" {
		if err := cellar.ValidateDigest(want.desc.Digest); err != nil {
			return want, err
		}
	}
	if f.ref != "" {
		if err := cellar.ValidateRef(f.ref); err != nil {
			return want, err
		}
	}
	var err error
	if want.labels, err = parseLabels(f.labels, false); err != nil {
		return want, err
	}
	if _, given := want.labels[labels.GCRoot]; !given && !f.noRoot && f.lease == "" {
		want.labels[labels.GCRoot] = time.Now().UTC().Format(time.RFC3339)
	}
	return want, labels.Validate(want.labels)
}

// outcome is what became of one source.
type outcome struct {
	digest digest.Digest
	there  bool // the namespace had it already
	err    error
}

// ingestParallel is how many files are stored at once, so that they share the
// waits for the disk.
const ingestParallel = 8

// ingestAll stores the sources and prints their digests in the sources' order.
func (a *app) ingestAll(ctx context.Context, s *session, sources []source, want wish, names bool) error {
	outcomes := make([]chan outcome, len(sources))
	for i := range outcomes {
		outcomes[i] = make(chan outcome, 1)
	}
	slots := make(chan struct{}, ingestParallel)
	go func() {
		for i, src := range sources {
			slots <- struct{}{}
			go func() {
				outcomes[i] <- a.ingestOne(ctx, s, src, want)
				<-slots
			}()
		}
	}()
	var failures []error
	for i, src := range sources {
		if err := a.tell(src, <-outcomes[i], names); err != nil {
			failures = append(failures, err)
		}
	}
	return a.many(len(sources), failures)
}

// tell prints the outcome for src and returns its error.
func (a *app) tell(src source, o outcome, names bool) error {
	if o.err != nil {
		return fmt.Errorf("ingest %s: %w", src.name, o.err)
	}
	if o.there {
		a.say("%s: was there already", src.name)
	}
	if names {
		fmt.Fprintf(a.out, "%s  %s\n", o.digest, src.name)
	} else {
		fmt.Fprintln(a.out, o.digest)
	}
	return nil
}

// ingestOne stores one source with its labels.
func (a *app) ingestOne(ctx context.Context, s *session, src source, want wish) outcome {
	input, err := src.open(ctx)
	if err != nil {
		return outcome{err: err}
	}
	o := a.write(ctx, s, src.withDefaults(want), input)
	o.err = errors.Join(o.err, input.Close())
	if o.err == nil && o.there {
		o.err = addLabels(ctx, s.store, o.digest, want.labels)
	}
	return o
}

// addLabels sets those of wanted that content does not have, as a commit would
// have done. A root label that is there stays as it is.
func addLabels(ctx context.Context, store cellar.Manager, dgst digest.Digest, wanted map[string]string) error {
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return err
	}
	missing := map[string]string{}
	for key, value := range wanted {
		if had, ok := info.Labels[key]; had != value && (key != labels.GCRoot || !ok) {
			missing[key] = value
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = store.Update(ctx, cellar.Info{Digest: dgst, Labels: missing}, labelPaths(missing)...)
	return err
}

// write stores what input holds.
func (a *app) write(ctx context.Context, s *session, want wish, input io.Reader) outcome {
	w, err := cellar.OpenWriter(ctx, s.store, cellar.WithRef(want.ref), cellar.WithDescriptor(want.desc))
	if errdefs.IsAlreadyExists(err) {
		return outcome{digest: want.desc.Digest, there: true}
	}
	if err != nil {
		return outcome{err: err}
	}
	if w.Digest() == want.desc.Digest {
		// All is there: left by an earlier command, or lent by another namespace.
		input = nil
	} else if st, err := w.Status(); err == nil && st.Offset > 0 {
		a.say("ref %s: continuing after %d bytes", cellar.Shorten(want.ref), st.Offset)
	}
	err = fill(ctx, w, want, input)
	o := outcome{digest: w.Digest(), there: errdefs.IsAlreadyExists(err)}
	if err != nil && !o.there {
		o.err = errors.Join(err, w.Close(), a.dropUseless(ctx, s, w, want, err))
	}
	return o
}

// fill copies input, unless it is nil, into w and commits it.
func fill(ctx context.Context, w cellar.Writer, want wish, input io.Reader) error {
	if input != nil {
		if _, err := cellar.CopyReader(ctx, w, input); err != nil {
			return err
		}
	}
	return w.Commit(ctx, want.desc.Size, want.desc.Digest, cellar.WithLabels(want.labels))
}

// dropUseless removes what a failed write left, if nobody can use it: bytes
// that are complete and wrong, and those of an ingestion without a name. What
// only broke off stays, to be continued.
func (a *app) dropUseless(ctx context.Context, s *session, w cellar.Writer, want wish, cause error) error {
	st, err := w.Status()
	if err != nil {
		return nil // the cause says more
	}
	short := want.desc.Size > 0 && st.Offset < want.desc.Size
	if want.resumable() && (short || !errdefs.IsFailedPrecondition(cause)) {
		a.say("ref %s: %d bytes are kept, the same command again continues", cellar.Shorten(want.ref), st.Offset)
		return nil
	}
	err = s.store.Abort(context.WithoutCancel(ctx), want.ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
