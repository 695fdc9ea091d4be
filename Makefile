# Two goals do everything on a machine with Python >= 3.11 and make: `make lab` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
ENV := .venv/.ready
SAMPLE := notebooks/sample.duckdb
# JupyterLab asks no one for news or updates, and the user not whether it may.
QUIET := --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate
OVERRIDES := .venv/share/jupyter/lab/settings/overrides.json

.DEFAULT_GOAL := help
.PHONY: help env lab test browser lint format types bench docs demo screenshots clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(ENV) ## the private environment, in .venv

# Made anew only when there is none that works; filled again whenever pyproject.toml changes.
$(ENV): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kern_nb needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv --clear .venv || \
	  { echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu it comes with the package python3-venv" >&2; exit 1; }
	@echo "Filling .venv (the first time takes a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/.bench: $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.venv/.docs: $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(SAMPLE): notebooks/make_sample.py | $(ENV)
	$(PY) notebooks/make_sample.py

$(OVERRIDES): $(ENV)
	@mkdir -p $(@D)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $@

# Without a display there is no browser to open (a text browser would take over the terminal): the URL is printed anyway.
lab: $(SAMPLE) $(OVERRIDES) ## JupyterLab on the tour notebook
	@options="--LabApp.default_url=/lab/tree/tour.ipynb $(QUIET)"; \
	if [ "$$(id -u)" = 0 ]; then options="$$options --allow-root"; fi; \
	if [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ]; then options="$$options --no-browser"; fi; \
	cd notebooks && exec ../$(BIN)/jupyter lab $$options

# Four at once, file by file: most tests wait for other processes, a database or a disk.
test: lint types $(SAMPLE) ## everything: lint, types, tests on all engines, tests in a real browser
	$(PY) -m pytest -n 4 --dist loadfile --ignore=tests/browser
	$(MAKE) browser

# A run of its own: Playwright leaves an event loop behind, in which no other test could start one.
browser: $(SAMPLE) ## the tests in a real JupyterLab only
	chromium="$$($(PY) scripts/chromium.py)" && KERN_CHROMIUM="$$chromium" $(PY) -m pytest tests/browser

lint: $(ENV) ## ruff: rules and format; import-linter: imports go downwards
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo

format: $(ENV) ## ruff: mend what can be mended
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

types: $(ENV) ## mypy, strict
	$(PY) -m mypy

bench: .venv/.bench ## benchmarks beside the peers
	$(PY) -m benchmarks

docs: .venv/.docs ## the site in build/docs, with the pages of docs/ that are generated
	$(PY) docs/make.py
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

# On a copy: the tour branches sessions, and the sample store should stay as it was made.
demo: $(SAMPLE) ## the notebooks, run from top to bottom, as HTML in build/
	@rm -rf build/notebooks && mkdir -p build && cp -R notebooks build/notebooks
	$(PY) -m nbconvert --execute --to html --output-dir build build/notebooks/*.ipynb

screenshots: $(SAMPLE) ## the pictures in docs/images, of the tour in JupyterLab
	chromium="$$(CI=true $(PY) scripts/chromium.py)" && KERN_CHROMIUM="$$chromium" $(PY) tests/browser/screenshots.py

clean: ## removes what the other goals made, except .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis $(SAMPLE) $(SAMPLE).wal
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
