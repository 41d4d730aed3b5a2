# Every target does its own set-up: on a fresh machine only Python >= 3.11, make and git are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Hash-pinned; nothing here or in the requirements names a package index, so whatever pip is set up with is used.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Files of tests run side by side, each process with servers of its own: most tests wait most of the time.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: help run test verify smoke lint format openapi bench fuzz clean setup-local setup-dev requirements

help:
	@echo "make run      the whole system in the foreground, with sample traffic (Ctrl-C stops it)"
	@echo "make test     core tests on real servers"
	@echo "make smoke    one event across every hop, then stop"
	@echo "make openapi  write docs/openapi.json after a change of the HTTP API"
	@echo "make lint     ruff, mypy --strict, import rules, house rules"
	@echo "make fuzz     the strict reader under a coverage-guided fuzzer for SECONDS=60"
	@echo "make verify   lint, all tests, the long crash rounds (by hand, before something is called done)"

run: setup-local
	@exec $(BIN)/triggers dev --samples

smoke: setup-local
	@$(BIN)/triggers smoke

test: setup-dev
	@$(PYTEST) -m "not verify" --durations=10

verify: lint
	@$(PYTEST) --durations=20
	@$(MAKE) --no-print-directory fuzz SECONDS=30

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# One benchmark beside its comparator; BENCH names the module in benchmarks/.
bench: setup-dev
	@$(BIN)/python -m benchmarks.$(or $(BENCH),recovery)

# The published contract, after a change of the HTTP API. No server is needed.
openapi: setup-dev
	@$(BIN)/triggers openapi --output docs/openapi.json

# What it finds is left in build/fuzz/: add it to the corpus with its mend. Inputs it met on its way are kept there for the next run.
fuzz: setup-dev
	@mkdir -p build/fuzz/strict_reader
	@$(BIN)/python -m tests.fuzz.strict_reader -max_total_time=$(or $(SECONDS),60) -max_len=4096 -timeout=10 -print_final_stats=1 \
		-dict=tests/fuzz/json.dict -artifact_prefix=build/fuzz/ build/fuzz/strict_reader tests/fuzz/corpus/strict_reader

format: setup-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup-local: $(VENV)/.local
setup-dev: $(VENV)/.dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "making the virtual environment ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local: requirements/local.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what the system needs (once) ..."
	@$(PIP_INSTALL) --require-hashes -r requirements/local.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@: > $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what tests and linters need (once) ..."
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@: > $@
	@: > $(VENV)/.local

# Resolve the pins again after a change of pyproject.toml. No index line is written.
COMPILE := $(BIN)/pip-compile --quiet --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate \
	--allow-unsafe --strip-extras --generate-hashes
requirements: setup-dev
	$(COMPILE) --extra local --extra dev -o requirements/dev.txt pyproject.toml
	$(COMPILE) -c requirements/dev.txt --extra local -o requirements/local.txt pyproject.toml
	$(COMPILE) -c requirements/dev.txt -o requirements/runtime.txt pyproject.toml

clean:
	rm -rf .triggers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
