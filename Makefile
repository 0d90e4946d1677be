# `make run` trains the main study on the embedded data, `make test` checks everything; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test notebooks clean

run: $(VENV)/installed
	$(BIN)/python -m ablations.run sweep=groups

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Runs the notebooks and keeps what they put out.
notebooks: $(VENV)/installed
	cd notebooks && ../$(BIN)/jupyter execute --inplace *.ipynb

# Made anew when the dependencies or the kernels change. The check comes first: an old Python would fail later and less clearly.
$(VENV)/installed: pyproject.toml $(wildcard sa_core/fused/kernels/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@echo "Installing into $(VENV): about 5 GB, most of it torch; some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf build sa_core/fused/*.so $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
