# Needs: Python >= 3.11, make, a package index. Everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint clean
help:
	@echo "make demo          three nodes, real data, kill the leader twice, check every write"
	@echo "make demo KEEP=1   the same, and leave the cluster running"
	@echo "make test          set up and run all tests"
	@echo "make lint          ruff, mypy, import contracts"

$(VENV)/ready: setup.cfg pyproject.toml requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 15) else f"raftdb needs Python 3.11 to 3.14, and {sys.executable} is {v.major}.{v.minor}: run make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (first time only) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/ready
	@$(BIN)/raftdb demo $(if $(KEEP),--keep) $(DEMO_ARGS)

test: $(VENV)/ready-dev
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(TEST_ARGS)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info
