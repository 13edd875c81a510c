# `make sweep` and `make test` do everything from a fresh clone; the rest is for developers.
# LIBERO=1 brings the assets of the official suites: make setup LIBERO=1.
PYTHON ?= python3
BIN := .venv/bin
SWEEP ?= dit_speed

# A test run starts hundreds of Python processes. Where this is set, each would compile torch and
# MLflow anew, 3 to 7 seconds of CPU per process, as pip was not asked to compile what it installs.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup sweep test test-interpreters lint types format docs clean

setup:
	@PYTHON=$(PYTHON) LIBERO=$(LIBERO) scripts/setup

sweep:
	@SYSTEM_PACKAGES=run LIBERO=$(LIBERO) PYTHON=$(PYTHON) scripts/setup
	$(BIN)/python -m duqsweep +sweep=$(SWEEP)

test: setup
	@scripts/compile-once
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-interpreters: setup
	scripts/test-interpreters

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs:
	@PYTHON=$(PYTHON) DOCS=1 scripts/setup
	scripts/docs

clean:
	rm -rf .venv build *.egg-info
