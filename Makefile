# `make demo` and `make test` do all their own set-up: python3 and make are all they assume.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The tests run as four processes, three at a time: each part of a package takes minutes, some of
# which it waits for other processes. That of the solver compiles most kernels, so it comes first:
# those after it find them.
CORE := $(addprefix tests/mixsolve/,arrays base batch bench cardinality commands engines)
PLUGIN := $(addprefix tests/mixsolve_torch/,attacks candidates commands core data engine evaluation)
PYTEST := pytest-training pytest-plugin pytest-core

.PHONY: demo figures test lint types docs pytest pytest-solver $(PYTEST) format install clean

demo: $(INSTALLED)
	$(BIN)/mixsolve demo --out demo --replace

# The figures and pictures of README.md and docs/index.md; a test holds the pages against them.
figures: $(INSTALLED)
	$(BIN)/python -m benchmarks.page_figures

# The lints, which fail soonest, come first, and what takes a minute while kernels are compiled.
test: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 3 lint pytest-solver types docs $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

# Warnings are errors: a page, a picture or a name that a link does not find ends the build.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pytest: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 3 pytest-solver $(PYTEST)

pytest-core: $(INSTALLED)
	$(BIN)/pytest $(CORE)

pytest-solver: $(INSTALLED)
	$(BIN)/pytest tests mixsolve --ignore tests/mixsolve_torch $(addprefix --ignore=,$(CORE))

pytest-plugin: $(INSTALLED)
	$(BIN)/pytest $(PLUGIN)

pytest-training: $(INSTALLED)
	$(BIN)/pytest tests/mixsolve_torch mixsolve_torch $(addprefix --ignore=,$(PLUGIN))

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
