# `make run` and `make test` do all set-up on a fresh machine. PYTHON=python3.12 names an interpreter.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test lint bench crash histories fuzz lowest lock clean setup setup-dev system

export PYTHON ?= python3
export VENV ?= .venv
# Relative, so that a path with spaces does no harm.
BIN := $(VENV)/bin
# A file's tests stay together, for what they share. WORKERS= runs all in one process.
WORKERS ?= -n logical --maxprocesses 4 --dist loadfile

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

run: setup ## set up what is missing, then list the keystores in examples/keystore
	@"$(BIN)/mfm" op keystore_list --keystore examples/keystore

test: system setup-dev ## set up what is missing, then lint, type-check and test with coverage
	@$(MAKE) --no-print-directory lint
	@"$(BIN)/python" -m pytest $(WORKERS) --cov --cov-report=term $(PYTEST_ARGS)

lint: setup-dev ## ruff and mypy
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"

bench: setup-dev ## run each script in benchmarks/; they print JSON
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script" >&2; "$(BIN)/python" -m "benchmarks.$$(basename "$$script" .py)"; done

crash: system setup-dev ## the long form of the crash and property suites
	@HYPOTHESIS_PROFILE=long "$(BIN)/python" -m pytest --long --timeout=3600 tests/crash tests/contracts tests/unit $(PYTEST_ARGS)

histories: setup-dev ## record the runs of tests/histories that are missing; none is written again
	@"$(BIN)/python" -m tests.histories.record

fuzz: setup-dev ## the long form of the fuzz suite, and a minute of atheris where it is installed
	@HYPOTHESIS_PROFILE=long "$(BIN)/python" -m pytest --timeout=3600 tests/fuzz $(PYTEST_ARGS)
	@if "$(BIN)/python" -c 'import atheris' 2>/dev/null; then "$(BIN)/python" -m tests.fuzz.atheris_doors 60; fi

lowest: system ## the tests with the oldest versions that pyproject.toml allows
	@sh tools/lowest.sh $(PYTEST_ARGS)

lock: ## pin the newest versions in requirements.lock and requirements-dev.lock
	@sh tools/lock.sh

clean: ## remove what was built or installed here
	@sh tools/bootstrap.sh clean
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist

setup:
	@sh tools/bootstrap.sh venv run

setup-dev:
	@sh tools/bootstrap.sh venv dev

system:
	@sh tools/bootstrap.sh system
