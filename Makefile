# The commands of this project. `make audit` and `make test` need a Python of 3.11 or newer and a C++17 compiler; pip fetches the rest.
# Away from a machine with CPU wheels of torch at hand, say PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
JOBS ?= 2
OUT ?= report
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PYTEST = JAXSEC_REQUIRE_DEVICES=1 JAXSEC_REQUIRE_NATIVE=1 $(BIN)/python -m pytest -q -n $(JOBS)
BUILD := build/ctest
# What an installed copy depends on; Python sources are linked in (editable), so they are not.
NATIVE := pyproject.toml CMakeLists.txt $(shell find csrc -type f)

# Name any interpreter with `make PYTHON=...`; otherwise the first new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help audit test bench lint wheel clean

help:
	@echo "make audit   install and run 'jaxsec audit', report in $(OUT)/"
	@echo "make test    install for development; C++ tests, lint, types, Python tests, each bench once and small, the wheel"
	@echo "make bench   install the peers and run bench/ (about an hour; one part: pytest bench/test_pgd.py)"
	@echo "make lint    ruff and pyright only"
	@echo "make wheel   build the wheel, install it elsewhere and check that copy"
	@echo "make clean   remove $(VENV), build/ and caches"

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "No Python of 3.11 or newer on PATH (python3 is $$(python3 --version 2>&1 || true)). Install one, or say: make PYTHON=/path/to/python3.12" >&2; exit 1; fi
	"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"{sys.executable} is Python {sys.version.split()[0]}; jaxsec needs 3.11 or newer.")'
	"$(PYTHON)" -m venv $(VENV) || { echo "The venv module failed; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.audit: $(NATIVE) | $(BIN)/python
	$(PIP) -e '.[audit,train]'
	@touch $@

$(VENV)/.dev: $(NATIVE) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@

# torchattacks and auto_LiRPA declare torchvision (CUDA builds of gigabytes, never imported) and old versions; what they do import is in the extra.
$(VENV)/.bench: $(NATIVE) | $(BIN)/python
	$(PIP) -e '.[audit,train,bench]'
	$(PIP) --no-deps torchattacks==3.5.1 auto_LiRPA==0.3
	@touch $@

audit: $(VENV)/.audit
	$(BIN)/jaxsec audit --out "$(OUT)"
	@echo "The report is in $(abspath $(OUT))"

# Tests wait for hundreds of small programs to be compiled, so they are compiled unoptimised, in a fifth to a half of the time. These are
# tested as users run them: there rounding is the subject, or an unoptimised program is slow. JAXSEC_FULL=1 tests all as users do.
BOUND := large_numbers narrow_curves rounding rules_sound summation_orders unary
NATIVE_BITS := noise philox random_bits
OPTIMISED := $(BOUND:%=tests/bound/test_%.py) tests/certify/test_clip.py $(NATIVE_BITS:%=tests/native/test_%.py)

test: $(VENV)/.dev ctest lint
	$(PYTEST) $(OPTIMISED)
	JAXSEC_QUICK=$(if $(JAXSEC_FULL),,1) $(PYTEST) $(addprefix --ignore=,$(OPTIMISED))
	JAXSEC_QUICK=$(if $(JAXSEC_FULL),,1) $(BIN)/python -m pytest -q bench -n $(JOBS) --benchmark-disable
	$(MAKE) wheel

.PHONY: ctest
ctest: $(VENV)/.dev
	$(BIN)/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN))/ninja" -DJAXSEC_SANITIZE=ON >/dev/null
	$(BIN)/cmake --build $(BUILD)
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# An editable install cannot show what the wheel lacks. The copy is unpacked and run there; -S keeps the editable finder out.
wheel: $(VENV)/.dev
	rm -rf dist build/unpacked
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist .
	$(BIN)/python -m zipfile -e dist/jaxsec-*.whl build/unpacked
	site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cd build/unpacked && PYTHONPATH="$$PWD:$$site" "$(abspath $(BIN))/python" -S -c "$$WHEEL_CHECK"

define WHEEL_CHECK
import pathlib
import jaxsec
from jaxsec import _native
here = pathlib.Path.cwd()
assert here in pathlib.Path(jaxsec.__file__).parents, jaxsec.__file__
assert (here / 'jaxsec/py.typed').is_file()
assert _native.status() == 'loaded', _native.status()
print('wheel:', jaxsec.__version__, 'native', _native.status())
endef
export WHEEL_CHECK

bench: $(VENV)/.bench
	$(BIN)/python -m pytest -q bench --benchmark-autosave

clean:
	rm -rf $(VENV) build dist .cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find jaxsec tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
