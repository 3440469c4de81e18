# Every target builds .venv by itself, with pip and constraints.txt; a second run costs seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := -c constraints.txt
# a process for each core, four at most; a file's tests stay together, since they share what they train
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-all check format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      match a real pair, train a small matcher for a minute, convert it, match again"
	@echo "make test      the tests (minutes)"
	@echo "make test-all  the slow tests too"
	@echo "make check     format, lint, types, imports"
	@echo "make format    put the format right"

# torch first and exactly: any other order lets pip take a build with several GB of CUDA packages
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "tiepoint needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing into $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	@$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.dev
	@$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
