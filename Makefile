# Drakkar's two commands are `make demo` and `make test`; the others are their parts.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROVIDER ?= upstream
NODES ?= 4
BASE ?= python:3.11-slim-bookworm
REGISTRY ?= localhost
VERSION ?= 0.1.0

.PHONY: help setup data cluster install demo test lint unit integration e2e bench generate docs images clean-cluster

help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Create the Python environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Drakkar needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Set PYTHON=python3.11 or the like.")'
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || (apt-get update -qq && apt-get install -qq -y python3-venv)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	[ -x $(BIN)/uv ] || $(BIN)/pip install --quiet -c constraints.txt uv
	echo "Installing the Python environment (PyTorch is 3 GB; a few minutes at the first time) ..."
	# Pods see the environment read-only: what is not compiled now they would compile at each start.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[operator,workers,serve,server,gpu,dev,docs]'
	touch $@

data: setup ## Fetch the text that examples train on
	@$(BIN)/python -m drakkar_workers.data fetch

cluster: setup data ## Bring up the local Kubernetes cluster
	@$(BIN)/drakkar cluster up --provider $(PROVIDER) --nodes $(NODES)

install: cluster ## Install Drakkar into the cluster with Helm
	@$(BIN)/drakkar install

demo: install ## Train a model on the local cluster, lose a pod on the way, see it recover
	@$(BIN)/drakkar demo

test: setup data ## All checks and tests, as CI runs them
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest tests/unit tests/integration tests/e2e

lint: setup ## Style, types and the direction of imports
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## Tests that need no cluster
	@$(BIN)/pytest tests/unit

integration: setup data ## Tests against a real API server
	@$(BIN)/pytest tests/integration

e2e: setup data ## Tests of whole jobs on real kubelets
	@$(BIN)/pytest tests/e2e

bench: setup data ## Measure the operator, placement and recovery
	@for bench in tests/bench/*.py; do $(BIN)/python $$bench; done

generate: setup ## Write the files that are made from code: CRDs, reference pages, dashboards, the chart's README
	@$(BIN)/python -m drakkar.crdgen
	$(BIN)/python -m drakkar_dashboards
	PYTHONPATH=tests $(BIN)/python -m support.metrics_page
	PYTHONPATH=tests $(BIN)/python -m support.chart

docs: setup ## Write the documentation as a site, to build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	echo "build/site/index.html"

images: ## Build the images with Docker: make images BASE=python:3.11-slim-bookworm REGISTRY=localhost
	@for part in operator worker server devices; do
	  docker build --build-arg BASE=$(BASE) -f images/Dockerfile.$$part -t $(REGISTRY)/drakkar/$$part:$(VERSION) .
	done

clean-cluster: ## Take the local cluster away, with all its processes and files
	@if [ -x $(BIN)/drakkar ]; then $(BIN)/drakkar cluster down; fi
