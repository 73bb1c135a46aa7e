# Two commands on a fresh machine: `make repro` (the experiment) and `make test` (everything checked).
# Only make, git and python >= 3.11 are needed; all else is installed into .venv.

PYTHON ?= python3
VENV := .venv
TORCH := torch==2.13.0
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TOKENIZERS_PARALLELISM := false
export DVC_NO_ANALYTICS := true

.PHONY: help venv repro test lint check clean

help:
	@echo "make repro   run the experiment of params.yaml; the report is reports/index.html"
	@echo "make test    lint, types, spelling and all tests"
	@echo "make lint    lint, types and spelling only"
	@echo "make clean   forget results (artifacts, reports, caches), keep the environment"

# torch first and alone: where a CPU build is at hand it satisfies the rest, and the lock pins no CUDA companion.
$(VENV)/installed: requirements.lock.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alignslm needs Python 3.11 or newer; set PYTHON=")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

venv: $(VENV)/installed

check: venv
	alignslm check

repro: venv check
	dvc repro

lint: venv
	ruff check .
	ruff format --check .
	mypy
	codespell

test: lint
	pytest

clean:
	rm -rf artifacts reports .work .dvc/cache .dvc/tmp dvc.lock
