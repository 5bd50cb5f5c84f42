# Targets for people; what they do is in scripts/ and in the go command.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
TOOL := go tool -modfile=tools/go.mod
FUZZTIME ?= 30s
BENCH ?= .
COUNT ?= 6
SEEDS ?= 1000
ENDPOINTS ?= http://127.0.0.1:12380,http://127.0.0.1:22380,http://127.0.0.1:32380

.DEFAULT_GOAL := help
.PHONY: help build test sim planted fuzz faults bench bench-send cluster generate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./bin/raft-chat
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/raft-chat ./cmd/raft-chat

test: ## every check and every test, as CI runs them
	@scripts/check

fuzz: ## fuzz every decoder for FUZZTIME each (30s)
	@scripts/fuzz $(FUZZTIME)

sim: ## simulate SEEDS fresh clusters (1000) through disasters, or HOURS=1 long
	go run ./internal/sim/cmd $(if $(HOURS),-for $(HOURS)h,-seeds $(SEEDS))

planted: ## plant every known kind of bug and see that something notices
	go run ./internal/planted/cmd

faults: ## real faults on real nodes; FLAGS="-scenario kill-.* -long" (Linux, root)
	@scripts/faults $(FLAGS)

bench: ## Go benchmarks matching BENCH, COUNT times, summed up by benchstat
	@scripts/bench '$(BENCH)' $(COUNT)

bench-send: build ## load the running nodes at ENDPOINTS
	./bin/raft-chat bench send --endpoints $(ENDPOINTS)

cluster: build ## run a cluster of three on this machine (Procfile), Ctrl-C ends it
	$(TOOL) goreman start

generate: ## regenerate the Go code of the .proto files (needs protoc)
	@scripts/generate

clean: ## remove what builds leave behind; data directories stay
	rm -rf bin
	go clean -testcache
