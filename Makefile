# Two commands on a bare machine: `make demo` and `make test`. Needs Python >= 3.10 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SLOWEST ?= 5
WORKERS ?= 2

.PHONY: demo test test-slow test-stress check fix bench gpu clean help

help:           ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

demo: $(READY)  ## set up and run the whole comparison in miniature; ends with the path of the report
	@$(BIN)/invact demo

test: $(READY)  ## set up and run the fast tests, in two processes (WORKERS=1: in order)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --durations=$(SLOWEST)

test-slow: $(READY)  ## the tests that take minutes
	@$(BIN)/python -m pytest -m "slow and not stress" --durations=$(SLOWEST)

test-stress: $(READY)  ## 30,000 mutated inputs, a soak of the policy server, kills at random: half an hour
	@$(BIN)/python -m pytest -m stress --durations=$(SLOWEST)

check: $(READY) ## format, lint, types and fast tests
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright --pythonpath $(BIN)/python && $(MAKE) --no-print-directory test

fix: $(READY)   ## format and mend what ruff can mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(READY) ## measured ratios, side by side in one run
	@$(BIN)/invact bench

gpu: $(READY)   ## on a machine with a GPU: its tests and figures into runs/gpu, 8 minutes at most
	@$(BIN)/invact bench gpu

clean:          ## remove runs and caches, keep the virtual environment
	rm -rf runs .pytest_cache .ruff_cache .hypothesis build *.egg-info

# Installing is skipped until pyproject.toml changes.
$(READY): pyproject.toml
	@echo "setting up $(VENV): several minutes on first use, most of it PyTorch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[libero,dev]'
	@touch $(READY)
