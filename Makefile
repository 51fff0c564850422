GO          ?= go
BIN         ?= bin
FUZZTIME    ?= 30s
FAULTS      ?= 1
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/portmaster
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.release=$(VERSION)" -o $(BIN)/portmaster ./cmd/portmaster

.PHONY: run
run: build ## build it and serve on :8080, with a store inside the process
	@exec $(BIN)/portmaster serve

.PHONY: up
up: build ## run Redis, three replicas and HAProxy on this machine, on http://127.0.0.1:8080 (or PORT=)
	@PROGRAM=$(BIN)/portmaster deployments/local.sh up

.PHONY: down
down: ## end what make up started; its data stays in .local
	@deployments/local.sh down

# The race detector needs a C compiler and the headers of libc. Whether they are there is tried, not guessed.
.PHONY: test
test: ## run all tests, with the race detector where there is a C compiler, and on Redis where redis-server is installed
	@race=-race; \
	if ! CGO_ENABLED=1 $(GO) build -race -o /dev/null runtime/cgo 2>/dev/null; then \
		race=; echo "race detector: off, since there is no C compiler"; \
	fi; \
	$(GO) test -count=1 -v -run '^TestStores$$' ./allocator/storetest | grep -o 'stores: .*' && \
	$(GO) test -count=1 $$race ./...

.PHONY: test-faults
test-faults: build ## let real processes and networks fail under load, FAULTS=1 times, and check that nothing is lost
	PORTMASTER_TEST_TLS=1 $(GO) test -count=1 ./allocator ./handlers
	$(GO) test -count=$(FAULTS) -timeout 0 -v -tags faults ./cmd/portmaster/faults -program $(abspath $(BIN))/portmaster

.PHONY: lint
lint: ## check the format and the sense of the Go and Lua code (gofmt, go vet, staticcheck, luacheck)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags faults ./cmd/portmaster/faults
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags faults ./cmd/portmaster/faults
	luacheck --version >/dev/null && $(GO) test -count=1 -run '^TestLuacheck$$' ./lua

.PHONY: check-deployments
check-deployments: ## check every file of deployments/ with the parser of what reads it
	cd deployments/check && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) test -count=1 ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME=30s
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

.PHONY: bench
bench: build ## measure what calls cost, on a server and a Redis of its own (BENCH=-short: only that it works)
	$(GO) run ./cmd/ratios -program $(BIN)/portmaster $(BENCH)

.PHONY: docs
docs: ## write the table of settings into config/README.md
	$(GO) test -count=1 -run '^TestReadmeSettings$$' ./cmd/portmaster -write-readme

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
