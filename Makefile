# XtreemOS: see README.md for what the targets do.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what building and testing need (Debian 12 or 13, as root)
	@packaging/setup.sh

.PHONY: lint
lint: setup ## Check formatting and vet
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt-ed: $$out"; exit 1; }
	go vet ./...

.PHONY: build
build: setup ## Build everything
	go build ./...

.PHONY: test
test: build lint ## Run all tests, print what was skipped and a summary
	go run ./test/report -- go test -json -p 2 ./...
