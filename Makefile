.DEFAULT_GOAL := help
.PHONY: help install serve test lint types contracts unit e2e coverage chaos bench reference lock clean
bin := .venv/bin
SCENARIO ?= gateway
CHAOS_SHARE ?= 1

help: ## List the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: ## Create .venv from the lock file
	@scripts/install

serve: install ## Start everything on this machine: http://127.0.0.1:8000
	@$(bin)/clustergraph up

test: install lint types contracts unit e2e ## Everything that CI runs

lint: install ## Style
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .

types: install ## Types, strictly
	@$(bin)/mypy

contracts: install ## Which package may import which
	@$(bin)/lint-imports

unit: install ## All tests but those of the whole system
	@scripts/test-deps
	@env -u PYTHONDONTWRITEBYTECODE $(bin)/pytest tests --ignore tests/e2e --ignore tests/chaos -n 2 --dist loadfile

e2e: install ## The whole system over HTTP, on the fake and on the real engine
	@scripts/test-deps
	@env -u PYTHONDONTWRITEBYTECODE $(bin)/pytest tests/e2e

coverage: install ## Which lines the tests do not reach, but those of the whole system
	@scripts/test-deps
	@env -u PYTHONDONTWRITEBYTECODE $(bin)/pytest tests --ignore tests/e2e --ignore tests/chaos -n 2 --dist loadfile \
		--cov --cov-report=term

chaos: install ## What holds when processes are killed, clients leave and all is redeployed: CHAOS_SHARE=1
	@env -u PYTHONDONTWRITEBYTECODE CHAOS_SHARE=$(CHAOS_SHARE) CHAOS_RESULTS=benchmarks/results/chaos.json \
		$(bin)/pytest tests/chaos -s

bench: install ## A benchmark against its peers: SCENARIO=gateway, engine, replicas, compile, graphs…
	@scripts/peers
	@env -u PYTHONDONTWRITEBYTECODE $(bin)/python -m benchmarks $(SCENARIO)

reference: install ## Write the language's JSON Schema and reference page again
	@$(bin)/clustergraph schema > docs/pipeline.schema.json
	@$(bin)/clustergraph reference > docs/reference/nodes.md

lock: install ## Resolve the dependencies again
	@scripts/lock

clean: ## Remove everything that was built, the virtual environment and the data too
	rm -rf .venv .venv-peers .data build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
