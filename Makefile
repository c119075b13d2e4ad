# Everything a developer does, by name. `make` alone lists the targets.
# Works with nothing but Python ≥ 3.11 and make; another interpreter: `make PYTHON=python3.12 test`.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
NODE   := $(PY) tests/e2e/node.py
DEMO   ?= --port 3210
BENCH  ?=
TESTS  ?=
SEED   ?=

INSTALLED := $(VENV)/.installed
JS        := tests/e2e/js/node_modules/.package-lock.json
PAGE      := examples/unheard
PAGE_SRC  := $(shell find $(PAGE) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' \
               -not -name '*.py' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help init check test test-all conformance e2e trust trust-short bench bench-short demo docs dev browser clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp for the whole Python side: it is older than pyproject.toml exactly when something
# may have to be installed. pip 25.1 is the first that reads dependency groups.
$(INSTALLED): pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import sys; sys.exit("reactive_store needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PY) -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	$(PY) -m pip install -qq --disable-pip-version-check --editable '.[claude,s3]' --group test --group check
	@touch $@

$(JS): tests/e2e/js/package.json tests/e2e/js/package-lock.json $(INSTALLED)
	$(NODE) npm ci --prefix tests/e2e/js --silent --no-fund --no-audit
	@touch $@

$(PAGE)/node_modules/.package-lock.json: $(wildcard $(PAGE)/package-lock.json) $(INSTALLED)
	$(NODE) npm ci --prefix $(PAGE) --silent --no-fund --no-audit
	@touch $@

$(PAGE)/dist/index.html: $(PAGE)/node_modules/.package-lock.json $(PAGE_SRC)
	$(NODE) npm run build --prefix $(PAGE) --silent
	@touch $@

init: $(INSTALLED) $(JS)  ## install everything into .venv and node_modules

browser:  ## install Chromium where Debian's packages are at hand; the page's tests need one
	@bash tests/e2e/install_browser.sh

check: $(INSTALLED)  ## format, lint, types and architecture, in under half a minute
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -q -p no:randomly tests/test_architecture.py

test: $(INSTALLED) $(JS) $(PAGE)/dist/index.html browser  ## install what is missing, then run every test
	$(PY) -m pytest $(TESTS)

test-all: check test  ## check, every test, then the property tests with many more examples
	$(PY) -m pytest --hypothesis-profile=thorough -m 'not e2e'

conformance: $(INSTALLED)  ## what a Convex client can observe: vectors, frames, error texts
	$(PY) -m pytest tests/conformance

e2e: $(INSTALLED) $(JS) $(PAGE)/dist/index.html browser  ## real processes: server, Node clients, Chromium
	$(PY) -m pytest tests/e2e

# A run of everything starts the record anew, so that no figure stays of cases that are gone; the
# page is compared with it afterwards.
UNPAGED := --ignore=tests/trust/test_reliability_page.py
trust: $(INSTALLED) $(JS)  ## try for long to break each promise, then write the page; SEED=77 TESTS=tests/trust/crash
	@$(if $(TESTS),:,rm -f docs/reliability.json)
	TRUST=long TRUST_RECORD=1 $(if $(SEED),TRUST_SEED=$(SEED)) $(PY) -m pytest -v -p no:randomly --timeout=3600 --durations=15 $(UNPAGED) $(or $(TESTS),tests/trust)
	$(PY) -m tests.trust.reliability_page

trust-short: $(INSTALLED) $(JS)  ## the same attempts as in `make test`, then write the page; SEED and TESTS as above
	@$(if $(TESTS),:,rm -f docs/reliability.json)
	TRUST_RECORD=1 $(if $(SEED),TRUST_SEED=$(SEED)) $(PY) -m pytest -v -p no:randomly --durations=15 $(UNPAGED) $(or $(TESTS),tests/trust)
	$(PY) -m tests.trust.reliability_page

bench: $(INSTALLED)  ## our figures beside the ceilings of this machine; BENCH="push http --json"
	@$(PY) -m bench $(BENCH)

bench-short: $(INSTALLED)  ## the guard: fail when a ratio fell by more than a third
	@PYTHON=$(PY) .ci/bench.sh

demo: $(INSTALLED) $(PAGE)/dist/index.html  ## the Unheard page on a server of its own; DEMO="--port 4000"
	$(PY) $(PAGE)/demo.py $(DEMO)

docs: $(INSTALLED)  ## write the generated reference pages and snapshots anew, then test the documents
	$(PY) tests/reference_pages.py
	$(PY) -m tests.trust.reliability_page
	$(PY) -m tests.conformance.compatibility_page
	$(PY) -m pytest -q -p no:randomly tests/test_docs.py tests/test_exports.py tests/trust/test_reliability_page.py tests/conformance/test_compatibility_page.py

dev: $(INSTALLED)  ## serve this folder's app with reload on save
	$(VENV)/bin/reactive-store dev

clean:  ## remove what can be made again; data in .reactive_store stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis artifacts build dist *.egg-info
	rm -rf tests/e2e/js/node_modules $(PAGE)/node_modules $(PAGE)/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
