# make run    set up .venv, start everything on this machine, draw one picture, serve until Ctrl-C
#             e.g. make run ARGS="--gpus cpu,cpu --port 13000"
# make test   set up .venv, pass all tests          e.g. make test TESTS=tests/router
# make fuzz-http  a public schema tester asks every endpoint of a real gateway, for minutes   e.g. make fuzz-http ARGS="--seed 1"
# make test-system  as root: boot a systemd container, install into it, break things in it (tests/system)
# make wheel  set up .venv, make the wheel in dist/ (docs/operations.md says how it is installed)
# make check  set up .venv, formatting, lints, types
# make clean  remove what these made, the virtual environment included
#
# Needs Python 3.11 or newer with its venv module; PYTHON=/path/to/python3 names one.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help run test fuzz-http test-system wheel check clean
.NOTPARALLEL:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

run: $(VENV)/.run
	@exec $(BIN)/genserve up $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

fuzz-http: $(VENV)/.dev
	$(BIN)/python -m tests.openapi $(ARGS)

test-system: $(VENV)/.dev
	$(BIN)/python -m pytest -rs tests/system

wheel: $(VENV)/.dev
	$(BIN)/python -m hatchling build -t wheel

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist docs/examples/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp is newer than what was declared: nothing is installed twice. Development includes what a run needs.
$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV)"
	@$(BIN)/python tools/install.py gpu
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV)"
	@$(BIN)/python tools/install.py gpu traces dev
	@touch $(VENV)/.run $@

$(VENV)/.made:
	@python=""; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "GenServe needs Python 3.11 or newer, and none was found ($(or $(PYTHON),python3)). Install one, e.g." >&2; \
	  echo "  Debian, Ubuntu: sudo apt install python3 python3-venv" >&2; \
	  echo "or name one: make run PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments: its venv module is not installed." >&2; \
	  echo "  Debian, Ubuntu: sudo apt install python3-venv            Then run make again." >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version)"; \
	rm -rf $(VENV); $$python -m venv $(VENV) && touch $@
