# `make serve` (a chat page and the OpenAI API on http://127.0.0.1:8000), `make up` (a small cloud: control plane and
# gateway) and `make test`. All work from a fresh clone on a Linux machine with Python 3.11 or later and nothing else.
#
#   PYTHON=python3.12   the interpreter to build .venv with       MODEL=smollm2   what to serve
#   HOST, PORT          where to listen (127.0.0.1:8000)          ARGS="…"        more flags for the command
#
# What is installed is remembered in .venv/.installed-*, so a second run starts at once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

MODEL ?= smollm2
HOST ?= 127.0.0.1
PORT ?= 8000
ARGS ?=
BIN := .venv/bin
comma := ,
IS_RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	command -v $$python >/dev/null && $$python -c '$(IS_RECENT)' && echo $$python && break; done || echo python3)

.PHONY: help serve up test check format docs bench clean

help: ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

serve: .venv/.installed-openvino ## Set up, bring the default model, serve it with a chat page.
	@exec $(BIN)/argosy serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

up: .venv/.installed-openvino ## Set up, start control plane and gateway on this machine.
	@exec $(BIN)/argosy up --host $(HOST) --port $(PORT) $(ARGS)

test: .venv/.installed-test ## Set up and run the test suite.
	@$(BIN)/pytest $(ARGS)

check: .venv/.installed-dev ## Check format, lint, types, and who imports whom.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: .venv/.installed-dev ## Format the code and put right what the linter can.
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

docs: .venv/.installed-dev ## Renew the pages that are written from the code.
	@$(BIN)/python -m argosy.cli.reference > docs/cli.md

bench: .venv/.installed-openvino ## Measure a running server (ARGS="--help" lists what can be set).
	@$(BIN)/argosy bench $(ARGS)

clean: ## Remove the virtual environment and all caches of the tools (models stay).
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.created:
	@$(PYTHON) -c '$(IS_RECENT)' || { echo "error: Argosy needs Python 3.11 or later, and $(PYTHON) is not:" \
		"run make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make virtual environments:" \
		"on Debian and Ubuntu, run apt install python3-venv" >&2; exit 1; }
	@# From 24.1 on, pip tells programs how a download goes.
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=24.1' || echo "going on with the old pip"
	@touch $@

# $(1) = stamp, $(2) = extras. Editable, so that a change in src/ needs no new install.
define install
.venv/.installed-$(1): .venv/.created pyproject.toml
	@echo "installing argosy[$(2)] into .venv"
	@$$(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location -e '.[$(2)]'
	@$$(BIN)/argosy --version
	@touch $$@
endef
$(eval $(call install,openvino,openvino))
$(eval $(call install,dev,dev))
$(eval $(call install,test,dev$(comma)transformers))
