# make demo: install, then train and score on the embedded corpus.   make test: install, then the test suite.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed
# CI sets this to --no-cache-dir: a cached wheel hides a broken build.
FAIRSEQ_PIP_FLAGS ?=

.PHONY: install demo test test-without-fairseq test-all check docs bench clean

install: $(INSTALLED)

# torch first: fairseq-fixed has a source distribution only, which builds against the torch that is there.
# --no-deps: its torchaudio cannot be imported beside a CPU build of torch and takes transformers down with it;
# the extra fairseq-needs lists what it does import.
$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt user_dir/fairbeam/network/inference/csrc/native.cpp
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch setuptools wheel Cython numpy
	$(PIP) install -q --no-build-isolation --no-deps $(FAIRSEQ_PIP_FLAGS) fairseq-fixed==0.12.3.1
	$(PIP) install -q --no-build-isolation -c constraints.txt -e .[fairseq-needs,report,hf,dev]
	touch $@

demo: install
	scripts/demo.sh

test: install
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# The engine's tests where fairseq and what it brings cannot be imported, in the tests and in the commands they start.
test-without-fairseq: install
	PYTHONPATH=tests/without_fairseq $(BIN)/pytest -p no:hydra_pytest -n 2 --dist loadfile -m "not slow" tests/cli tests/generation tests/scoring \
		tests/test_bundle.py tests/test_checkpoint.py tests/test_rescoring.py tests/test_translator.py

test-all: install
	$(BIN)/pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff check user_dir tests scripts
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Pages that are written from the code; a test fails where they are stale.
docs: install
	$(BIN)/python scripts/write_docs.py

bench: install
	$(BIN)/python scripts/bench/bench.py

clean:
	rm -rf $(VENV) out build dist user_dir/*.egg-info
