# Every target does the set-up it needs, once. GNU make 3.81, as macOS has it, is enough.
#
#   make serve ARGS="--config my.toml"     options for the server
#   make PYTHON=/path/to/python3.12 test   another interpreter than the first one found

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
UV := .setup/uv/bin/uv
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet

# Inside the environment, so that they go with it.
CAN_RUN := $(VENV)/.can-run
CAN_TEST := $(VENV)/.can-test

.PHONY: help setup serve test lint docs lock clean

help:
	@echo "make serve   set up and run the server (options: ARGS=...)"
	@echo "make test    set up and run every check and test"
	@echo "make lint    lint, format, import contracts and types only"
	@echo "make setup   set up for serving and testing"
	@echo "make docs    write the documents that are generated from the settings"
	@echo "make lock    write the lock files anew from pyproject.toml"
	@echo "make clean   remove the environment and what tools left; models are kept"

setup: $(CAN_TEST)

serve: $(CAN_RUN)
	@$(BIN)/xiaozhi-trio $(ARGS) serve

test: $(CAN_TEST)
	@$(BIN)/python tools/verify.py

lint: $(CAN_TEST)
	@$(BIN)/python tools/verify.py lint format imports types

docs: $(CAN_RUN)
	$(BIN)/python -m xiaozhi_trio.config.document

lock: $(UV)
	$(COMPILE) --upgrade --extra embedded --output-file requirements.lock.txt
	$(COMPILE) --upgrade --extra embedded --extra aec --extra telemetry --extra dev --constraint requirements.lock.txt \
		--output-file requirements-dev.lock.txt

clean:
	rm -rf $(VENV) .setup build dist htmlcov .coverage .coverage.* src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh) && \
		echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)

# misaki declares Python < 3.13; the part of it that is used here runs on 3.13 as well.
ANY_PYTHON := --ignore-requires-python

$(CAN_RUN): requirements.lock.txt pyproject.toml | $(BIN)/python
	$(PIP) install $(ANY_PYTHON) --requirement requirements.lock.txt
	$(PIP) install --quiet --no-deps --editable .
	@sh tools/system_libraries.sh $(BIN)/python
	@touch $@

$(CAN_TEST): requirements-dev.lock.txt $(CAN_RUN)
	$(PIP) install --quiet $(ANY_PYTHON) --requirement requirements-dev.lock.txt
	@touch $@

$(UV): | $(BIN)/python
	$(BIN)/python -m venv .setup/uv
	.setup/uv/bin/pip install --quiet uv
