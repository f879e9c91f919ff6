module github.com/cellarstore/cellar/cmd/cellar

go 1.25.0

require (
	github.com/cellarstore/cellar v0.0.0-00010101000000-000000000000
	github.com/containerd/errdefs v1.0.0
	github.com/dustin/go-humanize v1.1.0
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/rogpeppe/go-internal v1.16.0
	github.com/spf13/cobra v1.10.2
	github.com/stretchr/testify v1.12.1
)

replace github.com/cellarstore/cellar => ../../
