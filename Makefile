# Tomonode: two commands do everything, `make demo` and `make test`. None needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo demo-train test fuzz check format bench bench-table1 learn lock viewer clean

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

# the fuzzers of tests/fuzz with random seeds, for so many minutes (docs/fuzzing.md)
MINUTES ?= 10
fuzz: setup
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

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

# rewrite the lock files with the newest versions that pyproject.toml and the .in files allow
lock: setup
	@$(BIN)/pip-compile --quiet --upgrade --extra dev --strip-extras --allow-unsafe --no-header --annotation-style line \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml
	@sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock # any build of that version: CPU or CUDA
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --annotation-style line --constraint requirements.lock \
	  --no-emit-index-url --no-emit-find-links --output-file requirements-s3.lock requirements-s3.in
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --annotation-style line --constraint requirements.lock \
	  --no-emit-index-url --no-emit-find-links --output-file requirements-interop.lock requirements-interop.in

# the OHIF viewer, as its makers publish it, for `tomonode web` to serve (docs/viewer.md); needs npm, 50 MB, no root
OHIF := 3.13.2
OHIF_SHA512 := WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==
TOMONODE_HOME ?= var
viewer:
	@command -v npm >/dev/null || { echo "tomonode: npm is needed to fetch the viewer; apt-get install npm" >&2; exit 2; }
	@set -e; mkdir -p "$(TOMONODE_HOME)"; new="$$(mktemp -d "$(TOMONODE_HOME)/viewer-XXXXXX")"; trap 'rm -rf "$$new"' EXIT; \
	  npm pack --silent --pack-destination "$$new" "@ohif/app@$(OHIF)" >/dev/null; \
	  found="$$($(PYTHON) -c 'import base64, hashlib, sys; print(base64.b64encode(hashlib.sha512(open(sys.argv[1], "rb").read()).digest()).decode())' "$$new/ohif-app-$(OHIF).tgz")"; \
	  [ "$$found" = "$(OHIF_SHA512)" ] || { echo "tomonode: the package's sha512 is $$found, not the pinned one; nothing installed" >&2; exit 1; }; \
	  tar -xzf "$$new/ohif-app-$(OHIF).tgz" -C "$$new"; cp "$$new/package/LICENSE" "$$new/package/dist/LICENSE"; \
	  rm -rf "$(TOMONODE_HOME)/viewer"; mv "$$new/package/dist" "$(TOMONODE_HOME)/viewer"; \
	  echo "OHIF $(OHIF) is in $(TOMONODE_HOME)/viewer; start \`tomonode web\` again"

clean:
	rm -rf $(VENV) build *.egg-info
