# `make demo` and `make test` do all their own set-up: python3 and make are all they assume.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types docs pytest pytest-core pytest-torch format install clean

demo: $(INSTALLED)
	$(BIN)/mixsolve demo --out demo --replace

# Two at a time, so that both cores are busy to the end; the longest first.
test: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 2 lint pytest-core types docs pytest-torch

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

# Warnings are errors: a page, a picture or a name that a link does not find ends the build.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Two processes, one a package: each keeps a core busy.
pytest: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 2 pytest-core pytest-torch

pytest-core: $(INSTALLED)
	$(BIN)/pytest tests mixsolve --ignore tests/mixsolve_torch

pytest-torch: $(INSTALLED)
	$(BIN)/pytest tests/mixsolve_torch mixsolve_torch

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

# The stamp is written last, so an installation that was interrupted is done again.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis
