# XtreemOS: "make help" shows the targets, README.md what they are for.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Packages and tests share one build cache only if they build alike.
export GOFLAGS := -trimpath
# Debian has no Go as new as go.mod asks for; Go fetches it as a module.
export GOTOOLCHAIN ?= auto
# Where setup puts a Go if the machine's is too old even for that.
export PATH := $(CURDIR)/build/go/bin:$(PATH)
DIST := dist

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what building and testing need (Debian 12 or 13, as root)
	@packaging/setup.sh

.PHONY: lint
lint: setup ## Check formatting, vet, and the packages with lintian
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt-ed: $$out"; exit 1; }
	go vet ./...

.PHONY: build
build: setup ## Build everything
	go build ./...

.PHONY: debs
debs: setup ## Build the .deb packages into dist/
	packaging/deb.sh $(DIST)

.PHONY: lintian
lintian: debs
	lintian --allow-root --fail-on error --suppress-tags maintainer-script-calls-systemctl $(DIST)/*.deb

# Packages whose concurrency is worth the race detector's time. By itself it has each
# process wait for a second at its end, and the guard's tests start hundreds.
RACE := ./aem/job ./infra/kv/pebble ./infra/bus/nats ./session/account ./session/wire ./vom/xvoms ./vom/vops ./xfs/client ./xfs/osd ./xfs/mrc ./nodeguard/...

# Both kernels are emulated, by a processor each: they have no others beside them.
VM := github.com/xtreemos/xos/test/vm
# The end-to-end tests wait more than they work: all others have their turn meanwhile.
E2E := github.com/xtreemos/xos/test/e2e
# Upgrading machines takes minutes, and hundreds of packages of a mirror's.
UPGRADE := github.com/xtreemos/xos/test/upgrade

.PHONY: test
test: build lint lintian ## Run all tests; print what was skipped, and a summary
	XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/report -- go test -json -p 2 -timeout 20m $(E2E) $$(go list ./... | grep -vx -e $(E2E) -e $(VM) -e $(UPGRADE)) \
		-- kernels -- go test -json -timeout 60m $(VM) \
		-- race -- env GORACE=atexit_sleep_ms=10 go test -json -race -p 2 -timeout 10m $(RACE)

.PHONY: test-unit
test-unit: setup ## Run the tests that need no grid
	go run ./test/report -- go test -json -p 2 -skip TestRootKernels ./...

.PHONY: test-e2e
test-e2e: debs ## Run the end-to-end tests on a grid of Debian 13 machines
	XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/report -- go test -json -timeout 20m ./test/e2e

.PHONY: test-bookworm
test-bookworm: debs ## Run what runs on grids on Debian 12 machines
	XOS_DEBIAN=bookworm XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/report -- go test -json -p 1 -timeout 30m \
		./test/testbed ./test/e2e ./test/apart ./subid_xos ./session/userdb

.PHONY: test-upgrade
test-upgrade: debs ## Upgrade a machine from Debian 12 to 13, and have 12 refuse what is built on 13
	XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/report -- go test -json -timeout 40m ./test/upgrade

.PHONY: test-vm
test-vm: debs ## Run what needs kernels of Debian's own, in virtual machines
	XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/report -- go test -json -timeout 60m $(VM)

GUARDCOST :=
MACHINE :=
.PHONY: bench-guard
bench-guard: ## Measure what the guard costs, beside AppArmor and Landlock, on Debian's kernel in a virtual machine
	mkdir -p build
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o build/guardcost ./test/bench/guardcost
	go build -trimpath -o build/xos-vm ./test/vm/cmd/xos-vm
	build/xos-vm -name guardcost up $(MACHINE) && build/xos-vm -name guardcost push build/guardcost /usr/local/bin/guardcost && \
		build/xos-vm -name guardcost run guardcost $(GUARDCOST); status=$$?; build/xos-vm -name guardcost down; exit $$status

FUZZTIME := 10m
.PHONY: fuzz
fuzz: setup ## Fuzz the modules, in C and Go, for FUZZTIME (10m) each; adds to the corpus
	go test ./test/fuzz -count=1 -v -timeout 0 -for $(FUZZTIME) -merge
	go test ./session/wire -run XXX -fuzz FuzzReply -fuzztime $(FUZZTIME)
	go test ./session/wire -run XXX -fuzz FuzzSnapshotFile -fuzztime $(FUZZTIME)
	go test ./session/wire -run XXX -fuzz FuzzRequest -fuzztime $(FUZZTIME)
	go test ./pam_xos -run XXX -fuzz FuzzOpenReply -fuzztime $(FUZZTIME)
	go test ./session/shim -run XXX -fuzz FuzzNames -fuzztime $(FUZZTIME)

.PHONY: bench
bench: debs ## Measure; prints lines "BENCH name value unit"
	XOS_DEBS=$(CURDIR)/$(DIST) go run ./test/bench

.PHONY: bench-names
bench-names: setup ## Measure user lookups alone, beside sssd in a Debian root that this makes
	go run ./test/bench -only nss_ -peers

.PHONY: demo
demo: debs ## Boot a grid, play the story on it, and leave it running
	go run ./test/demo -debs $(DIST)

.PHONY: demo-ssh
demo-ssh: ## A shell as alice on the demo's client
	@go run ./test/demo ssh

.PHONY: demo-down
demo-down: ## End the demo's grid
	go run ./test/demo down

.PHONY: clean
clean: ## Remove what was built
	rm -rf build $(DIST)
