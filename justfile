# Everything that a person runs here. `just` lists it; CI runs .ci/run, and so does `just ci`.

set shell := ["bash", "-euo", "pipefail", "-c"]

version := `git describe --tags --always --dirty 2>/dev/null || echo dev`

_default:
    @just --list --unsorted

# Build the gateway into bin/hedgerow: one static binary
[group('build')]
build:
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version={{ version }}" -o bin/ ./node/cmd/hedgerow

# Compile the BPF programs (clang-19) and regenerate what is committed
[group('build')]
gen:
    go generate ./...

# Keep a version's object, this one's if none is named, as the one that upgrades are tested from
[group('build')]
keep-object file='dataplane/xdp/kernel_bpfel.o':
    HEDGEROW_KEEP_OBJECT="$(realpath {{ file }})" go test -count=1 -run TestKeepObject ./dataplane/xdp

# Fail if a committed generated file is stale
[group('check')]
gen-check:
    .ci/run generated

# Format the code
[group('check')]
fmt:
    git ls-files -co --exclude-standard -z -- '*.go' | xargs -0 gofmt -w
    just --fmt --unstable

# Static checks: format, go vet, linters
[group('check')]
lint:
    .ci/run tools format vet lint

# Unit and simulation tests; `just test Never ./dataplane/...` runs what matches there
[group('test')]
test name='.' pkg='./...':
    go test -race -shuffle=on -run '{{ name }}' {{ pkg }}

# Tests that need root: XDP in the kernel, network namespaces (without -race, so quicker)
[group('test')]
test-kernel:
    .ci/run kernel

# The kernel tests on this kernel and, emulated, on Debian's 6.1 and 6.12
[group('test')]
kernel-matrix *args:
    CGO_ENABLED=0 go run ./dataplane/xdp/matrix {{ args }}

# Fuzz every target of the packages, each for a while
[group('test')]
fuzz time='20s' pkg='./...':
    .ci/fuzz {{ time }} {{ pkg }}

# Tell the product's whole story: in the kernel as root, in software otherwise
[group('run')]
demo *args: build
    bin/hedgerow demo {{ args }}

# What takes longer than CI may: the rules' bytes on arm64 (Debian's qemu-user-static), other kernels, 200 kills, two stories in virtual time, 1300 adversarial schedules of sealed rounds, eight attacks of colluders, what gates and parts keep from sites, fifty kills in a consortium, the demo over five seeds, a round of fuzzing
[group('check')]
verify: build
    GOARCH=arm64 CGO_ENABLED=0 go test -count=1 -exec qemu-aarch64-static -run Golden ./federation/robust
    HEDGEROW_LONG=1 go test -count=1 -timeout 60m ./node/internal/store ./node/internal/demo/...
    HEDGEROW_LONG=1 go test -count=1 -timeout 60m -run 'Study|Colluders|Council|Never' ./node/sim
    HEDGEROW_LONG=1 go test -count=1 -timeout 60m -run 'NoSiteLoses|BackDoors' ./learner
    HEDGEROW_LONG=1 go test -count=1 -timeout 30m ./federation ./federation/council ./node/internal/evaluate ./node/internal/history
    HEDGEROW_LONG=1 HEDGEROW_KERNEL_TESTS=1 go test -count=1 -timeout 60m -run 'Conformance|Bulk|Goodput|ScorersAgree' ./dataplane/xdp
    HEDGEROW_LONG=1 HEDGEROW_KERNEL_TESTS=1 go test -count=1 -run 'ModelInTheKernel|TheKernelDecides' ./node/internal/bench ./node/cmd/hedgerow
    for seed in 1 2 3 4 5; do bin/hedgerow demo --seed $seed; done
    bin/hedgerow demo --attack none
    bin/hedgerow demo --learner off
    examples/scheduler/test-slurm bin/hedgerow
    just kernel-matrix
    just fuzz 60s

# What CI runs, in its order; `just ci lint test` runs the named steps
[group('check')]
ci *steps:
    .ci/run {{ steps }}
