# Each target is a script in scripts/, which says at its top what it does and takes.
# make test PARTS="bridge lint" runs single parts; `scripts/test` lists them.
.DEFAULT_GOAL := help
PARTS ?=
ARGS ?=

.PHONY: help demo test services check fmt lint generate bench deny clean-tools

help: ## list these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## run the main job on this machine; installs what is missing
	@scripts/demo

test: ## run all tests; installs what is missing (PARTS="bridge lint": only these)
	@scripts/test $(PARTS)

services: ## hold the adapters' requests against what their services publish
	@scripts/services

check: ## does it compile? in seconds
	@SQLX_OFFLINE=true cargo check --locked --workspace --all-targets

fmt: ## format the code
	@scripts/format

lint: ## clippy, documentation links, shellcheck
	@scripts/lint

generate: ## write the generated files anew
	@scripts/generate

bench: ## measure it beside the bare parts; text and JSON (ARGS="--quick --only bridge")
	@scripts/bench $(ARGS)

deny: ## check the dependencies' licences, sources and known weaknesses
	@scripts/deny

clean-tools: ## remove everything that was installed
	@scripts/bootstrap clean
