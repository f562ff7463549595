# `make demo` and `make test` do all their own set-up: python3 and make are all they assume.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The tests run as five processes, three at a time: each part of a package takes minutes, some of
# which it waits for other processes. That of the benchmarks compiles most kernels, a minute's work,
# so in `make test` the others wait for it: they would compile the same at the same time.
CORE := $(addprefix tests/mixsolve/,arrays base batch bench cardinality commands engines)
PLUGIN := $(addprefix tests/mixsolve_torch/,attacks candidates commands core data engine evaluation)
PYTEST := pytest-training pytest-solver pytest-plugin pytest-core
KERNELS := pytest-benchmarks

.PHONY: demo figures test lint types docs pytest $(KERNELS) $(PYTEST) format install clean

demo: $(INSTALLED)
	$(BIN)/mixsolve demo --out demo --replace

# The figures and pictures of README.md and docs/index.md; a test holds the pages against them.
figures: $(INSTALLED)
	$(BIN)/python -m benchmarks.page_figures

# The lints, which fail soonest, come first, and what takes a minute while kernels are compiled.
test: $(INSTALLED)
	$(MAKE) --no-print-directory --jobs 3 FIRST=$(KERNELS) lint $(KERNELS) types docs $(PYTEST)

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
	$(MAKE) --no-print-directory --jobs 3 FIRST=$(KERNELS) $(KERNELS) $(PYTEST)

$(PYTEST): | $(FIRST)

pytest-benchmarks: $(INSTALLED)
	$(BIN)/pytest tests/benchmarks

pytest-core: $(INSTALLED)
	$(BIN)/pytest $(CORE)

pytest-solver: $(INSTALLED)
	$(BIN)/pytest tests mixsolve $(addprefix --ignore=,tests/benchmarks tests/mixsolve_torch $(CORE))

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
