# "make" alone says what there is.

GO ?= go
GOLANGCI = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
FUZZTIME ?= 20s

# Without its own path in them, what one clone has compiled another need not.
export GOFLAGS := $(shell $(GO) env GOFLAGS 2>/dev/null) -trimpath

.PHONY: help setup build test race fuzz bench lint demo docs model soak arm64 clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is needed (sudo where not root)
	@./scripts/setup

build: setup ## all programs, into bin/
	@$(GO) build -o bin/ ./cmd/...
	@printf '%-10s %s\n' build "$$(ls bin | tr '\n' ' ')"

# Tests wait for processes more than they work: four packages at a time keep two
# cores busy, and those that take longest begin first. Without symbols a test is
# linked sooner. PERCH_SEED=N repeats a run's choice of faults.
TESTFLAGS = -p 4
BUILDFLAGS = -ldflags='-s -w'
LONGEST = ./e2e ./cmd/sensor-camera ./cmd/jsonsender ./cmd/h264writer ./cmd/jsonsender/internal/sink ./cmd/csvwriter ./cmd/deleter ./cmd/uploader ./cmd/supervisor ./internal/spool

test: ## everything that must pass (about five minutes)
	@./scripts/setup --test
	$(GO) build $(BUILDFLAGS) -o bin/test/ ./cmd/... ./e2e/...
	$(GO) vet ./...
	@seed=$${PERCH_SEED:-$$(date +%s)}; echo "PERCH_SEED=$$seed"; \
	PERCH_SEED=$$seed PERCH_BIN=$(CURDIR)/bin/test $(GO) test -vet=off $(BUILDFLAGS) $(TESTFLAGS) $(LONGEST) ./...

race: ## packages under the race detector, whole fleets left out
	@./scripts/setup --test
	$(GO) test -race -p 1 ./pkg/... ./internal/... ./cmd/...

fuzz: ## each fuzz target for FUZZTIME (20s)
	@$(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ {f[n++]=$$1} /^ok/ {for (i=0;i<n;i++) print $$2, f[i]; n=0}' | \
	while read -r pkg target; do echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" || exit 1; done

bench: build ## measure, and write docs/BENCHMARKS.md
	$(GO) run ./bench --write

lint: ## what a linter can see
	$(GOLANGCI) run ./...

demo: build ## a box without hardware, until Ctrl-C or SECONDS=n
	@./bin/supervisor up --table $(if $(SECONDS),--for $(SECONDS)$(if $(filter %s %m %h,$(SECONDS)),,s)) deploy/demo.toml

model: ## YOLOX-nano (COCO, Apache-2.0) from its official release, into models/
	@./scripts/model

docs: build ## docs/TOPOLOGY.md from the programs themselves
	$(GO) test ./e2e -run TestTopologyDocument -update

soak: build ## all faults at all calls and steps; then kills and power cuts for an hour each
	PERCH_SOAK=1s $(GO) test -p 1 ./internal/spool ./cmd/csvwriter ./cmd/mover ./cmd/uploader ./cmd/deleter -run 'Call|AStep|KilledWhileItSalvages' -timeout 1h -v
	PERCH_SOAK=1s $(GO) test ./cmd/h264writer -run 'Kill|AnyTwoSteps|AnyCall' -timeout 2h -v
	PERCH_SOAK=1s $(GO) test -p 1 ./cmd/jsonsender/... -timeout 2h -v
	PERCH_SOAK=1h $(GO) test ./e2e -run 'TestKills|TestFilesBalance|TestPowerCuts|TestObjectsOfAVideo' -timeout 4h -v

arm64: ## build for a 64-bit Raspberry Pi (needs Debian's arm64 packages; the recipe is in CONTRIBUTING.md)
	CC=aarch64-linux-gnu-gcc PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig \
	CGO_ENABLED=1 GOOS=linux GOARCH=arm64 $(GO) build -o bin/arm64/ ./cmd/...

clean: ## what was built
	rm -rf bin demo-data
