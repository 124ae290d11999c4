# Two commands for users: `make run`, `make test`. Both set themselves up with Python 3.11+ alone.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

.PHONY: run test test-unit lint bench lock clean

run: .venv/local.stamp  ## everything on 127.0.0.1:8000
	@exec $(BIN)/manymetrics serve

test: .venv/dev.stamp  ## lint, types and all tests
	$(BIN)/pre-commit run --all-files
	$(BIN)/pytest tests

test-unit: .venv/dev.stamp
	$(BIN)/pytest tests/unit

lint: .venv/dev.stamp
	$(BIN)/pre-commit run --all-files

bench: .venv/dev.stamp
	$(BIN)/python -m tests.bench

lock:  ## after a change of the dependencies in pyproject.toml
	$(COMPILE) --extra dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra local -c requirements-dev.lock pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build .manymetrics

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ManyMetrics needs Python 3.11 or later: make PYTHON=/path/to/python3 run")'
	@echo "Setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/local.stamp: requirements.lock pyproject.toml .venv/bin/uv
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/local.stamp
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements-dev.lock
	@touch $@
