# Bare `make` prints the targets. Every one but help needs .venv, which the first one that is run sets up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TF_CPP_MIN_LOG_LEVEL ?= 3
export KERAS_BACKEND = tensorflow

.PHONY: help setup demo test test-fast fuzz bench bench-quick bench-streams bench-quantized docs lint types format golden golden-check dist lock clean
.DEFAULT_GOAL := help

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the tool, its locked dependencies and its development tools

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "export-lstm needs Python 3.11 or newer; $(PYTHON) is older. Give another: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV): TensorFlow and both runtimes, 2.4 GB on disk, about a minute after the download."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## export the speech model three ways, prove it, stream a recording through each
	@$(BIN)/python examples/japanese_vowels/demo.py

test: $(STAMP) ## run all tests, two at a time: each process takes 1.5 GB
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: $(STAMP) ## run the tests that take half a minute, for the inner loop
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m fast

SECONDS := 600
fuzz: $(STAMP) ## throw mutants of models and artifacts at their readers, ten minutes (SECONDS=600)
	@$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS)

bench: $(STAMP) ## measure against the peers side by side, half an hour on an idle machine
	@$(BIN)/python benchmarks/run.py

bench-streams: $(STAMP) ## measure a step of streaming models against recomputing their windows, two minutes
	@$(BIN)/python benchmarks/streams.py

bench-quantized: $(STAMP) ## measure quantized artifacts: how close, how large, how quick, ten minutes
	@$(BIN)/python benchmarks/quantized.py --speed

bench-quick: $(STAMP) ## the same in three minutes: some shapes, up to 960 time steps
	@$(BIN)/python benchmarks/run.py --quick

docs: $(STAMP) ## build the documentation into docs/_build/index.html; a warning is an error
	@$(BIN)/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build

lint: $(STAMP) ## check style and architecture
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(STAMP) ## check types
	@$(BIN)/mypy

format: $(STAMP) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

golden: $(STAMP) ## record every case under golden/ again
	@$(BIN)/python golden/make.py

golden-check: $(STAMP) ## prove that the cases under golden/ are what their recipes give
	@$(BIN)/python golden/make.py --check

dist: $(STAMP) ## build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

lock: ## resolve requirements.lock anew from pyproject.toml (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --group dev pyproject.toml --output-file requirements.lock

clean: ## remove everything that make made
	@rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
