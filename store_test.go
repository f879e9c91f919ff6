package cellar_test

import (
	"testing"

	"github.com/cellarstore/cellar/storetest"
)

// The model keeps every promise of the contract.
func TestModel(t *testing.T) {
	for name, rules := range map[string]storetest.Rules{
		"isolated": {}, "shared": {Shared: true}, "without labels": {NoLabels: true},
	} {
		t.Run(name, func(t *testing.T) {
			tenancy := storetest.ModelTenancy(rules)
			storetest.Run(t, tenancy.Implementation())
			if !rules.NoLabels {
				storetest.RunTenants(t, tenancy)
			}
		})
	}
}
