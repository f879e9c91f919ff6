package metadata

import "context"

// turn is a lock that can be waited for with a context.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn, or for ctx to end.
func (t turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Lock waits for the turn however long it takes.
func (t turn) Lock() { t <- struct{}{} }

// Unlock gives the turn to the next.
func (t turn) Unlock() { <-t }
