# The developer loop: `make check` while working, `make all` before a change
# is handed in. CI runs `make all`'s commands, in .ci/run.

MODULES  := $(shell go list -m -f '{{.Dir}}/...')
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 3s

.PHONY: check all fmt lint test race fuzz tour

## check: formatting, vet and all tests of all modules; a minute or two
check: fmt test
	go vet work

## all: everything that CI runs
all:
	bash .ci/run

fmt:
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

lint:
	go vet work
	$(STATICCHECK) $(MODULES)

test:
	go test work

race:
	go test -race -short ./...

## fuzz: every fuzz target for FUZZTIME
fuzz:
	bash .ci/fuzz $(FUZZTIME)

tour:
	go run ./cmd/cellar tour
