# The two commands of the README do all the set-up themselves:
#   make ask     install into .venv, fetch the default model, start the daemon, ask a question
#   make test    install with the development tools, run the tests
.PHONY: ask test check slow faults load fuzz voice voice-packages web web-packages \
	service-packages page bench catalogues dist deb clean help
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VOICE_PACKAGES := espeak-ng sox pulseaudio pulseaudio-utils libportaudio2 libasound2-plugins
WEB_PACKAGES := chromium chromium-driver fonts-roboto-unhinted fonts-nanum
SERVICE_PACKAGES := systemd dbus libpam-systemd libfaketime
WEB ?=
ARCH ?= arm64
RELEASE ?= bookworm
FUZZ ?= gguf frames tokenizer templates
FUZZ_S ?= 3600
Q ?= What is the capital of France?

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'make check   lint and types'
	@echo 'make slow    the tests that take minutes'
	@echo 'make faults  1000 kills, 200 power cuts and a day on a small device, in two hours (as root)'
	@echo 'make load    200 clients, 10000 requests'
	@echo 'make voice   the tests with real voices, recognisers and a sound server (500 MB of packages)'
	@echo 'make web     the tests of the page, in Chromium (make web-packages)'
	@echo 'make page    after a change of the page: its icons, list of files and version'
	@echo 'make catalogues   collect the messages to translate, and compile (docs/languages.md)'
	@echo 'make dist    the wheel and the source archive, in dist/ (docs/install.md)'
	@echo 'make deb     a Debian package, in dist/: ARCH=arm64 RELEASE=bookworm (docs/install.md)'
	@echo 'make fuzz    an hour of each fuzzer (FUZZ_S=600, FUZZ=gguf for less; docs/hostile.md)'
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

$(VENV)/.voice: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[voice-test]'
	@touch $@ $(VENV)/.dev $(VENV)/.run

ask: $(VENV)/.run
	$(BIN)/assistant --yes --temperature 0 "$(Q)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m 'slow and not voice and not web'

faults: $(VENV)/.dev
	model=$$($(BIN)/python -m benchmarks.default_model) && \
	$(BIN)/python -m benchmarks.kills "$$model" --json docs/kills.json && \
	$(BIN)/python -m benchmarks.power_cuts "$$model" --json docs/power-cuts.json && \
	$(BIN)/python -m benchmarks.small_device "$$model" --json docs/small-device.json && \
	$(BIN)/python docs/device_plot.py docs/small-device.json

load: $(VENV)/.dev
	$(BIN)/python -m benchmarks.load "$$($(BIN)/python -m benchmarks.default_model)" --json docs/load.json

voice: $(VENV)/.voice
	@for program in espeak-ng pulseaudio pactl; do command -v $$program >/dev/null || \
		{ echo "$$program is missing; on Debian: sudo apt install $(VOICE_PACKAGES)"; exit 1; }; done
	$(BIN)/python -m pytest -m 'voice and not slow'

voice-packages:
	apt-get update -qq
	apt-get install -y -qq $(VOICE_PACKAGES) >/dev/null

# for the tests of the service, which boot systemd in namespaces, and of clocks that jump
service-packages:
	apt-get update -qq
	apt-get install -y -qq $(SERVICE_PACKAGES) >/dev/null

web: $(VENV)/.dev
	@command -v chromedriver >/dev/null || \
		{ echo 'Chromium is missing; on Debian: sudo make web-packages'; exit 1; }
	$(BIN)/python -m pytest -m 'web and not slow' $(WEB)

web-packages:
	apt-get update -qq
	apt-get install -y -qq $(WEB_PACKAGES) >/dev/null

page: $(VENV)/.dev
	$(BIN)/python -m tests.page_assets

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

catalogues: $(VENV)/.dev
	$(BIN)/python -m tests.catalogues $(CATALOGUE)

dist: $(VENV)/.dev
	$(BIN)/python systemd/packaging/dist.py

deb: dist
	$(BIN)/python systemd/packaging/deb.py --arch $(ARCH) --release $(RELEASE) \
		dist/assistantd-$$($(BIN)/python -P -c 'import tomllib; \
		print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')-py3-none-any.whl

fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@for target in $(FUZZ); do \
		$(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_S) \
			--corpus .fuzz/$$target --artifacts .fuzz/crashes || exit 1; \
	done

bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.compare_llama_cpp "$$($(BIN)/python -m benchmarks.default_model)"

clean:
	rm -rf $(VENV) .model-cache .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
