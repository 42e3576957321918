# The two commands of the README do all the set-up themselves:
#   make ask     install into .venv, fetch the default model, start the daemon, ask a question
#   make test    install with the development tools, run the tests
.PHONY: ask test check slow bench clean help
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
Q ?= What is the capital of France?

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'make check   lint and types'
	@echo 'make slow    the tests that take minutes'
	@echo 'make bench   speed beside llama.cpp (builds it: about ten minutes)'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3.12 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo 'python3 lacks venv; on Debian: sudo apt install python3-venv'; exit 1; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.run

ask: $(VENV)/.run
	$(BIN)/assistant --yes --temperature 0 "$(Q)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.compare_llama_cpp "$$($(BIN)/python -m benchmarks.default_model)"

clean:
	rm -rf $(VENV) .model-cache .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
