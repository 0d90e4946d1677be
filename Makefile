# `make run` trains the main study on the embedded data, `make test` checks everything; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# uv installs in parallel, where it is there; `make UV=` does without.
UV ?= $(shell command -v uv 2>/dev/null)
INSTALL = $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)

.PHONY: run test test-gpu test-oldest notebooks clean

run: $(VENV)/installed
	$(BIN)/python -m ablations.run sweep=groups

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# The tests that need a GPU, in eight processes, as most of their time kernels are compiled; the quick ones come first.
test-gpu: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cuda -n 8 --dist worksteal

# Tests the oldest versions of everything that pyproject.toml allows, in an environment of their own, before a release.
# Needs uv. Linters and type checkers are left out: they judge code, not what it runs with.
test-oldest:
	$(if $(UV),,$(error uv is needed to choose the oldest versions: https://docs.astral.sh/uv/))
	$(UV) venv --clear --python $(PYTHON) $(OLDEST)
	$(UV) pip install --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Runs the notebooks and keeps what they put out.
notebooks: $(VENV)/installed
	cd notebooks && ../$(BIN)/jupyter execute --inplace *.ipynb

# Made anew when the dependencies or the kernels change. The check comes first: an old Python would fail later and less clearly.
$(VENV)/installed: pyproject.toml $(wildcard sa_core/fused/kernels/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@echo "Installing into $(VENV) with $(if $(UV),uv,pip): about 5 GB, most of it torch; some minutes."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[dev]'
	@touch $@

clean:
	rm -rf build sa_core/fused/*.so $(VENV) $(OLDEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
