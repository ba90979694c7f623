# Every target sets up what it needs; the second time that takes no time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# setuptools warns of every editable installation.
INSTALL := PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help demo test bench check simulate simulate-scale e2e chaos format lock clean

help: ## Say what there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: $(VENV)/.local ## Play a campaign on the embedded AWS and compare every score
	@$(BIN)/scoring demo $(ARGS)

test: $(VENV)/.dev ## Run the tests
	@$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.dev ## Measure the service beside its alternatives; ARGS=--quick takes two minutes
	@$(BIN)/python -m tests.benchmarks.bench $(ARGS)
	@$(BIN)/python -m tests.benchmarks.sizing

check: $(VENV)/.dev ## Lint, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>&1 | tail -n 20; exit $${PIPESTATUS[0]}

simulate: $(VENV)/.dev ## Thousands of runs with faults in virtual time, from a fresh seed: make simulate RUNS=n [SEED=s]
	@$(BIN)/python -m tests.simulation.simulate --runs $(or $(RUNS),500) $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate-scale: $(VENV)/.dev ## 10,000 shards and 200 workers in virtual time
	@$(BIN)/python -m tests.simulation.scale $(ARGS)

e2e: export E2E_AWS = $(or $(AWS),environment)
e2e: $(VENV)/.dev ## End to end: on the AWS that AWS_ENDPOINT_URL names, else the embedded one; AWS=real: AWS itself
	@$(BIN)/python -m tests.e2e.target
	@$(BIN)/python -m pytest tests/e2e/test_worker.py $(ARGS)

chaos: $(VENV)/.dev ## Kill, hang and stop three real workers under faults; compare every score (needs Node)
	@$(BIN)/python -m tests.chaos $(ARGS)

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate pyproject.toml
lock: $(VENV)/.dev ## Renew the lock files
	$(LOCK) $(ARGS) --extra local --extra dev --output-file requirements-dev.txt
	$(LOCK) --extra local --constraint requirements-dev.txt --output-file requirements-local.txt
	$(LOCK) --constraint requirements-dev.txt --output-file requirements.txt

clean: ## Remove what can be made again
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

SHELL := /bin/bash

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": run make PYTHON=/path/to/python3.11")'
	@echo "setting up $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)

# A stamp is older than its lock only where the lock has changed: otherwise nothing is installed.
$(VENV)/.dev: requirements-dev.txt pyproject.toml | $(BIN)/python
	@echo "installing the locked packages ..." >&2
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@$(INSTALL)
	@touch $(VENV)/.local $@

$(VENV)/.local: requirements-local.txt pyproject.toml | $(BIN)/python
	@echo "installing the locked packages ..." >&2
	@$(PIP) install --require-hashes --requirement requirements-local.txt
	@$(INSTALL)
	@touch $@
