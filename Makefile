# make demo: install, then train and score on the embedded corpus.   make test: install, then the quick tests.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
STEP := scripts/step.sh $(VENV)/install.log
# Address of a package index with another build of torch, for instance for CPUs alone.
TORCH_INDEX ?=
# CI sets this to --no-cache-dir: a cached wheel hides a broken build.
FAIRSEQ_PIP_FLAGS ?=
# One part of the slow tests: 1/4 is the first of four.
SHARD ?= 1/1
STARTED := $(shell date +%s)
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
CSRC := user_dir/fairbeam/network/inference/csrc

.PHONY: install lock demo test test-slow test-all test-without-fairseq check check-native docs bench clean

install: $(INSTALLED)

# torch first, since fairseq-fixed has a source distribution only, which builds against the torch that is there.
# The packages that torch requires differ by machine, so pip finds them. All else is installed as constraints.txt says, without
# their own requirements: fairseq-fixed's torchaudio cannot be imported beside a CPU build of torch and takes
# transformers down with it.
$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt $(shell find user_dir -name '*.cpp' -o -name '*.h')
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "$(PYTHON): fairbeam is tested with Python 3.11; make PYTHON=... names one" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), in a few minutes the first time; pip's log is $(VENV)/install.log"
	@$(STEP) "torch and tools to build the rest" $(PIP) install -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0 setuptools wheel Cython numpy
	@$(STEP) "fairseq, which compiles its extension" \
	  $(PIP) install --no-build-isolation --no-deps $(FAIRSEQ_PIP_FLAGS) fairseq-fixed==0.12.3.1
	@$(STEP) "all other packages" $(PIP) install --no-build-isolation --no-deps -r constraints.txt
	@$(STEP) "fairbeam, which compiles its native loops" \
	  $(PIP) install --no-build-isolation --no-deps -e .[fairseq-needs,report,hf,dev]
	@find user_dir -name '_native*.so' | grep -q . || \
	  echo "  The native loops were not built, so decoding is slower; is g++ installed? See $(VENV)/install.log"
	@$(BIN)/python scripts/lock.py --check
	@touch $@

# Choose versions anew, within constraints.in and setup.cfg.
lock:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -q --no-deps -c constraints.in setuptools wheel packaging
	@$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) $(BIN)/python scripts/lock.py

demo: install
	@INSTALL_SECONDS=$$(($$(date +%s) - $(STARTED))) scripts/demo.sh $(OUT)

test: install
	@echo "The quick tests, on 2 processes; make test-all runs the slow ones, too"
	@$(PYTEST) -m "not slow"

test-slow: install
	@echo "Slow tests, part $(SHARD)"
	@$(PYTEST) -m slow --shard $(SHARD)

test-all: install
	@$(PYTEST)

# The engine's tests where fairseq and what it brings cannot be imported, in the tests and in the commands they start.
test-without-fairseq: install
	@echo "The engine's quick tests with fairseq made absent"
	@PYTHONPATH=tests/without_fairseq $(PYTEST) -p no:hydra_pytest -m "not slow" tests/cli tests/generation tests/scoring \
	  tests/formats/test_bundle.py tests/formats/test_fairseq_checkpoint.py tests/test_reranking.py tests/test_translator.py

check: install
	$(BIN)/ruff check user_dir tests scripts
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/clang-format --dry-run -Werror $(CSRC)/*.h $(CSRC)/*.cpp

# The native library without warnings, its tests and 500 fuzzed decodes under AddressSanitizer and
# UndefinedBehaviorSanitizer; about ten minutes.
check-native: install
	@$(BIN)/python scripts/check_native.py

# Pages that are written from the code; a test fails where they are stale.
docs: install
	$(BIN)/python scripts/write_docs.py
	$(BIN)/python scripts/draw_architecture.py

bench: install
	$(BIN)/python scripts/bench/bench.py

clean:
	rm -rf $(VENV) out build dist user_dir/*.egg-info
