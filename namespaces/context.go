package namespaces

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Default is the namespace that tools use where none is named. Nothing in this
// module falls back to it by itself.
const Default = "default"

type contextKey struct{}

// WithNamespace returns a context that carries name, in place of the one that
// ctx may carry. The name is not checked until it is used.
func WithNamespace(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, contextKey{}, name)
}

// Namespace returns the name that ctx carries, and whether it carries one that
// is not empty.
func Namespace(ctx context.Context) (string, bool) {
	name, _ := ctx.Value(contextKey{}).(string)
	return name, name != ""
}

// NamespaceRequired returns the name that ctx carries. It is
// FailedPrecondition for a context that carries none or an empty one, and
// InvalidArgument where [Validate] refuses the name.
func NamespaceRequired(ctx context.Context) (string, error) {
	name, ok := Namespace(ctx)
	if !ok {
		return "", fmt.Errorf("the context names no namespace, give one with WithNamespace: %w", errdefs.ErrFailedPrecondition)
	}
	if err := Validate(name); err != nil {
		return "", err
	}
	return name, nil
}
