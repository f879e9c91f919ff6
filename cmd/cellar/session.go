package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cellarstore/cellar"
	"github.com/cellarstore/cellar/leases"
	"github.com/cellarstore/cellar/local"
	"github.com/cellarstore/cellar/metadata"
	"github.com/cellarstore/cellar/namespaces"
	"github.com/containerd/errdefs"
)

// databaseName is the metadata's file in the store's folder.
const databaseName = "metadata.db"

// session is an open store and the namespace that the command works in.
type session struct {
	*metadata.DB
	store  cellar.Store   // the namespace's view
	leases leases.Manager // the namespace's
	name   string         // the namespace
	root   string         // the store's folder
	blobs  *local.Store
}

// mustExist and mayCreate say what open does where there is no store.
type creation bool

const (
	mustExist creation = false
	mayCreate creation = true
)

// with opens the store, runs fn, and closes the store again. What can't be
// done with a store that is not there creates nothing.
func (a *app) with(ctx context.Context, c creation, fn func(context.Context, *session) error) error {
	s, err := a.open(c)
	if err != nil {
		return err
	}
	return errors.Join(fn(ctx, s), s.close())
}

func (a *app) open(c creation) (*session, error) {
	policy, err := a.sharingPolicy()
	if err != nil {
		return nil, err
	}
	name := a.namespaceName()
	if err := namespaces.Validate(name); err != nil {
		return nil, err
	}
	root, err := a.rootDir()
	if err != nil {
		return nil, err
	}
	if c == mustExist {
		if err := checkStore(root); err != nil {
			return nil, err
		}
	}
	return openSession(root, name, metadata.Options{Policy: policy})
}

// checkStore returns a noStoreError where root holds no store.
func checkStore(root string) error {
	_, err := os.Stat(filepath.Join(root, databaseName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &noStoreError{root}
	case errors.Is(err, fs.ErrPermission):
		return &openError{fmt.Errorf("store %s: %w: %w", root, errdefs.ErrPermissionDenied, err)}
	case err != nil:
		return &openError{fmt.Errorf("store %s: %w", root, err)}
	}
	return nil
}

// openSession opens the store in root, and makes it where there is none.
func openSession(root, name string, opts metadata.Options) (*session, error) {
	blobs, err := local.Open(root, local.Options{})
	if err != nil {
		return nil, unopened(err)
	}
	db, err := metadata.Open(filepath.Join(root, databaseName), blobs, opts)
	if err != nil {
		return nil, errors.Join(unopened(err), blobs.Close())
	}
	s := &session{DB: db, name: name, root: root, blobs: blobs}
	s.store, err = db.Namespace(name)
	if err == nil {
		s.leases, err = db.NamespaceLeases(name)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *session) close() error {
	return errors.Join(s.DB.Close(), s.blobs.Close())
}

// unopened marks an error of opening a store.
func unopened(err error) error {
	if errdefs.IsUnavailable(err) {
		return &heldError{err}
	}
	return &openError{err}
}
