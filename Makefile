# `make help` lists the targets. What they install goes to PGRESCUE_CACHE, outside the
# checkout, and so does the build folder: a clean checkout builds warm.
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

export PGRESCUE_CACHE ?= $(HOME)/.cache/pgrescue
export CARGO_TARGET_DIR ?= $(PGRESCUE_CACHE)/target
export BENCH_OUT ?= $(CARGO_TARGET_DIR)/bench.jsonl

# What runs pgrescue.
PGRESCUE ?= cargo run --quiet --locked --bin pgrescue --

CRDS := crds/pgrescue.dev.yaml
CRDS_COPIES := charts/pgrescue/crds/pgrescue.dev.yaml config/base/crds.yaml

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: packages ## Build the pgrescue binary
	cargo build --locked --bin pgrescue

.PHONY: fmt
fmt: ## Format the code
	cargo fmt

.PHONY: lint
lint: packages ## Check formatting, and clippy and shellcheck without a warning
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets -- --deny warnings
	git ls-files '*.sh' .ci/run | xargs shellcheck

.PHONY: deny
deny: ## Check the licences, the origins and the duplicates of dependencies
	e2e/cluster/install.sh cargo-deny
	$(PGRESCUE_CACHE)/bin/cargo-deny --log-level error check bans licenses sources

.PHONY: generate
generate: packages ## Write the CRDs, their copies, and what kustomize makes of the chart
	e2e/cluster/install.sh helm
	$(PGRESCUE) crds >$(CRDS)
	for copy in $(CRDS_COPIES); do cp $(CRDS) $$copy; done
	config/render.sh >config/base/operator.yaml

.PHONY: check-generated
check-generated: packages ## Fail when a generated file is not what `make generate` writes
	$(PGRESCUE) crds | diff -u $(CRDS) - >&2
	for copy in $(CRDS_COPIES); do diff -u $(CRDS) $$copy >&2; done

.PHONY: unit
unit: packages ## Run the tests beside the code
	cargo test --quiet --locked --lib --bins

.PHONY: integration
integration: packages ## Run the tests against real PostgreSQL servers and a real S3 server
	tests/parts/install.sh
	cargo test --locked --test integration -- --test-threads 6

.PHONY: e2e
e2e: packages ## Run the tests on Kubernetes (E2E_KEEP=1 leaves the cluster up)
	e2e/run.sh

.PHONY: test
test: packages ## Run everything, as CI does
	@# What the later steps need is built beside the first ones, and all tests at once: one compiler leaves cores idle.
	@# The binary that comes with them says what is generated: tests turn a feature of tokio on, so that one without it
	@# means to compile nearly everything once more.
	@setsid nice -n 10 bash -c 'tests/parts/install.sh && e2e/cluster/install.sh' & tools=$$!; \
	trap 'kill -- -$$tools 2>/dev/null || true' EXIT; \
	$(MAKE) --no-print-directory lint; \
	cargo test --quiet --locked --no-run --lib --bins --test integration --test e2e; \
	$(MAKE) --no-print-directory PGRESCUE=$(CARGO_TARGET_DIR)/debug/pgrescue check-generated unit integration; \
	wait $$tools; \
	$(MAKE) --no-print-directory deny e2e

.PHONY: bench
bench: packages ## Compare with the stock tools; BENCH=<group> for one group, figures to BENCH_OUT
	cargo bench --quiet --locked --bench pgrescue -- $(BENCH)

.PHONY: demo
demo: packages ## Show a backup and a restore on Kubernetes, from nothing
	e2e/demo/up.sh

.PHONY: demo-down
demo-down: ## Remove what the demo left
	e2e/demo/down.sh

.PHONY: images
images: packages ## Build the operator and agent images
	e2e/cluster/images.sh

.PHONY: install-tools
install-tools: ## Install everything that tests and demo need
	tests/parts/install.sh
	e2e/cluster/install.sh

.PHONY: packages
packages:
	@e2e/cluster/install.sh packages
