# `make help` lists all targets.
SHELL := /bin/bash
PYTHON ?= python3
PREFIX ?= /opt/pillowd
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PYTEST := $(BIN)/pytest -q
CHECK_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("pillowd needs Python 3.11 or newer; set PYTHON=/path/to/it")
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## Set up and show the whole path on this machine (SERVE=1 keeps it up)
	$(BIN)/python -m tests.demo $(if $(SERVE),--serve)

demo-cluster: $(VENV)/.dev ## Show two daemons that share the work over Kafka, and kill one of them
	@$(BIN)/python -m tests.servers install couchdb postgres kafka
	$(BIN)/python -m tests.demo --cluster

test: machine ## Set up and run all tests, with real servers
	@$(MAKE) --no-print-directory dev
	@$(BIN)/python -m tests.servers install
	@$(MAKE) --no-print-directory lint types
	$(BIN)/python -m tests $(ARGS)

machine: ## Report what this machine lacks for the tests
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@$(PYTHON) -m tests.servers check

proof: $(VENV)/.dev ## Run the tests at full size: every promised figure (PART=name; resumable)
	@$(BIN)/python -m tests.servers install
	$(BIN)/python -m tests.runner.proof $(PART)

soak: $(VENV)/.dev ## Run the long tests
	@$(BIN)/python -m tests.servers install
	PILLOWD_SOAK=1 $(PYTEST) -m soak --timeout 14400 -s $(ARGS)

chaos: $(VENV)/.dev ## Crash it CYCLES=300 times under faults, and write the results down
	@$(BIN)/python -m tests.servers install
	$(BIN)/python -m tests.chaos --cycles $(or $(CYCLES),300) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) --note

mutants: $(VENV)/.dev ## Run mutation tests of the modules that decide (MODULE=part of a path)
	@$(BIN)/python -m tests.servers install
	$(BIN)/python -m tests.mutants $(MODULE) $(ARGS)

fuzz: $(VENV)/.dev ## Fuzz every parser, guided by coverage, for SECONDS=3600 in all (NAME=one parser)
	$(BIN)/python -m tests.fuzz $(NAME) --seconds $(or $(SECONDS),3600)

bench: $(VENV)/.dev ## Measure speed and memory, compared with the raw servers
	@$(BIN)/python -m tests.servers install
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(VENV)/.dev ## Compare it with other programs (ARGS=--note writes it down)
	@$(BIN)/python -m tests.servers install couchdb postgres
	$(BIN)/python -m bench.peers $(ARGS)

trace: $(VENV)/.dev ## Print the path of one change: calls, modules, greenlets, buffers
	@$(BIN)/python -m tests.servers install
	@$(BIN)/python -m bench.trace

lint: $(VENV)/.dev ## Check style, imports and dependencies
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
	$(BIN)/deptry .

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

format: $(VENV)/.dev ## Fix style
	$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format .

setup: $(VENV)/.runtime ## Make .venv with pillowd and its dependencies

dev: $(VENV)/.dev ## ... and those of its tests

docs: $(VENV)/.dev ## Build the documentation into build/docs
	$(BIN)/python -m docs.generate
	PYTHONPATH=. $(BIN)/python docs/screenshots.py
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

docs-links: docs ## Ask whether the documentation's links to other sites still lead somewhere
	$(BIN)/sphinx-build -q -b linkcheck docs build/docs-links

coverage: $(VENV)/.dev ## Measure branch coverage by unit and integration tests, and name what is not covered
	@$(BIN)/python -m tests.servers install
	rm -rf build/coverage
	-nice $(BIN)/coverage run -m pytest -q tests/unit
	-nice $(BIN)/coverage run -m pytest -q tests/integration
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --format=markdown > build/coverage/report.md; $(BIN)/coverage report

schema: $(VENV)/.runtime ## Write the configuration's JSON Schema for editors
	$(BIN)/pillowd config schema > etc/pillowd.schema.json

man: $(VENV)/.runtime ## Write the man page into build/
	@mkdir -p build
	$(BIN)/python -m daemon.cli.man_page > build/pillowd.1

install: ## Install as a service under PREFIX (/opt/pillowd), for packages under DESTDIR
	PYTHON="$(PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" etc/install.sh

COMPILE := $(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-header --no-emit-index-url -q

deb: $(VENV)/.dev ## Build the Debian package of the last commit into build/release
	$(BIN)/python -m release deb

release: $(VENV)/.dev ## Build and check all of a release in build/release; publish nothing
	$(BIN)/python -m release

image: $(VENV)/.dev ## Build the container image, which names its version and commit
	docker build --build-arg VERSION=$$($(BIN)/versioningit) --build-arg COMMIT=$$(git rev-parse HEAD) -t pillowd .

lock: $(VENV)/.dev ## Update the lock files from pyproject.toml
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra opensearch -o requirements-opensearch.lock
	$(COMPILE) pyproject.toml --extra kafka -o requirements-kafka.lock
	$(COMPILE) --group build -o requirements-build.lock
	$(COMPILE) pyproject.toml --group dev -o requirements-dev.lock

$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing pillowd's dependencies into $(VENV)"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps -e .
	@$(BIN)/pillowd config schema > etc/pillowd.schema.json
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing the tests' dependencies into $(VENV)"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: help coverage docs-links deb release image demo demo-cluster mutants test machine proof soak chaos fuzz bench bench-peers trace lint types format docs schema man install setup dev lock
