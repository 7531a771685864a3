# Tomonode: two commands do everything, `make demo` and `make test`. None needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo demo-train test check format bench bench-table1 learn lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tomonode: Python 3.11 or newer is needed, $(PYTHON) is older; call: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "setting up $(VENV) (a few minutes the first time: PyTorch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/tomonode demo $(if $(INPUT),--input "$(INPUT)") $(if $(OUT),--out "$(OUT)")

# from pathology labels to a promoted model and back, under 15 minutes (ARGS="--patients 12 --epochs 1": in small)
demo-train: setup
	@$(BIN)/tomonode demo-train $(if $(OUT),--out "$(OUT)") $(ARGS)

# two at a time: much of a test is waiting for other processes (JOBS=0: one after the other, in this process)
JOBS ?= 2
test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# what CI checks besides the tests: format, lint, types, import directions
check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup
	@$(BIN)/python -m tests.bench $(ARGS)

# Table I of the 3D-GMIC paper, counted and measured here (ARGS=--quick: two minutes)
bench-table1: setup
	@$(BIN)/python -m tests.bench.table1 $(ARGS)

# what the method learns from image labels, on phantoms: quick takes minutes, STUDY=full an hour and a half
STUDY ?= quick
learn: setup
	@$(BIN)/python -m gmic.study $(STUDY) --out "$(or $(OUT),study/$(STUDY))" $(ARGS)

# rewrite the lock files with the newest versions that pyproject.toml and requirements-s3.in allow
lock: setup
	@$(BIN)/pip-compile --quiet --upgrade --extra dev --strip-extras --allow-unsafe --no-header --annotation-style line \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml
	@sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock # any build of that version: CPU or CUDA
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --annotation-style line --constraint requirements.lock \
	  --no-emit-index-url --no-emit-find-links --output-file requirements-s3.lock requirements-s3.in

clean:
	rm -rf $(VENV) build *.egg-info
