GO          ?= go
BIN         ?= bin
DIST        ?= dist
FUZZTIME    ?= 30s
FAULTS      ?= 1
SCREENSHOTS ?= screenshots
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT  := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
PLATFORMS   := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
BUILD       := -trimpath -ldflags "-s -w -X main.release=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run it: Go is all that make run needs; make up also needs redis-server, haproxy and curl

.PHONY: build
build: ## build bin/portmaster
	CGO_ENABLED=0 $(GO) build $(BUILD) -o $(BIN)/portmaster ./cmd/portmaster

.PHONY: run
run: build ## build it and serve on 127.0.0.1:8080, with a store inside the process
	@exec $(BIN)/portmaster serve

.PHONY: up
up: build ## run Redis, three replicas and HAProxy on this machine, on http://127.0.0.1:8080 (or PORT=)
	@PROGRAM=$(BIN)/portmaster deployments/local.sh up

.PHONY: down
down: ## end what make up started; its data stays in .local
	@deployments/local.sh down

##@ Check a change: make lint test, which takes some minutes; go test ./handlers tests one package

# Packages wait more than they compute, so four run at a time.
.PHONY: test
test: ## run all tests, on Redis where redis-server is installed
	@$(GO) test -count=1 -v -run '^TestStores$$' ./allocator/storetest | grep -o 'stores: .*'
	$(GO) test -count=1 -p 4 ./...

# With the race detector a test takes several times as long. It finds nothing in one goroutine that calls scripts, or in a program that runs for a moment.
CALLS_SCRIPTS := Model$$|EpochModel|DrainWalk|Many(AreAsOneByOne|PortsDrain)|CheckKeys$$|History(IsBounded|ReadsOnlySoMuch)|PagesAreBounded|MapOfBlocks|AllAllocations
RUNS_PROGRAMS := Exec|Readme|Help|CommandLine|WhoIsLetIn|FailedStart|TokenUsage|PasswordIsNeverShown|BenchRefuses
.PHONY: test-race
test-race: ## run the tests of what runs at the same time with the race detector, which needs a C compiler
	$(GO) test -count=1 -p 4 -timeout 30m -race -skip '^Test($(CALLS_SCRIPTS)|$(RUNS_PROGRAMS))' ./...

.PHONY: lint
lint: platforms ## check the format and the sense of the Go and Lua code (gofmt, go vet, staticcheck, luacheck, actionlint)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags faults ./cmd/portmaster/systemtest
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags faults ./cmd/portmaster/systemtest
	luacheck --version >/dev/null && $(GO) test -count=1 -run '^TestLuacheck$$' ./lua
	$(GO) run $(ACTIONLINT)
	@awk '/^```$$/ {on = 0} on; /^```yaml github/ {on = 1}' cmd/portmaster/README.md | $(GO) run $(ACTIONLINT) - # the page's example

# A binary is not kept: the build proves that what only Linux has stands in files of its own.
.PHONY: platforms
platforms: ## build the program for Linux, macOS and Windows, amd64 and arm64
	@for platform in $(PLATFORMS); do \
		echo "building for $$platform"; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0 $(GO) build -trimpath -o /dev/null ./cmd/portmaster || exit 1; \
	done

##@ Check more: .ci/run installs what is missing on Debian, and runs all of this except fuzz

.PHONY: test-faults
test-faults: build ## let real processes and networks fail under load, FAULTS=1 times, and check that nothing is lost
	PORTMASTER_TEST_TLS=1 $(GO) test -count=1 ./allocator ./handlers
	$(GO) test -count=$(FAULTS) -timeout 0 -v -tags faults ./cmd/portmaster/systemtest -program $(abspath $(BIN))/portmaster

.PHONY: check-openapi
check-openapi: ## lint handlers/openapi.yaml, and generate clients in Go and TypeScript from it; needs Node.js and npm
	@.ci/check-openapi

.PHONY: check-deployments
check-deployments: ## check every file of deployments/ with the parser of what reads it
	cd deployments/check && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) test -count=1 ./...

.PHONY: check-browser
check-browser: build ## use the pages /ui/ and /docs/ in Chromium; pictures of them are left in screenshots/; needs chromium, npm, redis-server, haproxy
	rm -rf $(SCREENSHOTS)
	cd cmd/portmaster/browsertest && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && \
	$(GO) test -count=1 -timeout 10m -program $(abspath $(BIN))/portmaster -screenshots $(abspath $(SCREENSHOTS)) ./...

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

##@ Besides

.PHONY: docs
docs: ## write the table of settings into config/README.md, and that of who may do what into handlers/README.md
	$(GO) test -count=1 -run '^TestReadmeSettings$$' ./cmd/portmaster -write-readme
	$(GO) test -count=1 -run '^TestReadmeAccess$$' ./handlers -write-readme

.PHONY: dist
dist: ## build the program for every platform into dist/, with checksums and what is in each (SBOM, CycloneDX)
	rm -rf $(DIST) && mkdir -p $(DIST)
	@for platform in $(PLATFORMS); do \
		os=$${platform%/*} arch=$${platform#*/}; \
		program=$(DIST)/portmaster-$(VERSION)-$$os-$$arch; \
		case $$os in windows) program=$$program.exe;; esac; \
		echo "building $$program"; \
		GOOS=$$os GOARCH=$$arch CGO_ENABLED=0 $(GO) build $(BUILD) -o $$program ./cmd/portmaster && \
		$(GO) run $(CYCLONEDX) bin -json -std -noserial -notimestamp -short-purls -version "$(VERSION)" -output $$program.cdx.json $$program || exit 1; \
	done
	cd $(DIST) && sha256sum portmaster-* > SHA256SUMS

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) $(DIST)
