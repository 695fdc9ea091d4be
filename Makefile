# The two main goals, on a machine with Python >= 3.11 and make: `make lab` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
ENV := .venv/.ready
HARBOR := .venv/harbor/.ready
SAMPLE := notebooks/sample.duckdb
# JupyterLab does not check for news or updates, and does not ask for permission to.
QUIET := --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate
OVERRIDES := .venv/share/jupyter/lab/settings/overrides.json

# Where it is set, each of the test run's hundreds of processes would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env lab test peers browser lint format types bench docs demo screenshots clean

help: ## list the goals
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(ENV) ## create the environment in .venv

# Recreated only if it does not work; updated whenever pyproject.toml changes.
$(ENV): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kern_nb needs Python 3.11 or newer; '$(PYTHON)' is older or missing. Try: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv --clear .venv || \
	  { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu, install the package python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (a few minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/.bench: $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.venv/.peers: $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[peers]'
	@touch $@

.venv/.docs: $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The models by which Harbor validates trajectories in ATIF, without the rest: it needs Python 3.12 and 110 packages.
$(HARBOR): $(ENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --ignore-requires-python \
	  --upgrade --target $(@D) 'harbor==0.26.0' && touch $@ \
	  || echo "harbor cannot be installed: exports in ATIF are not checked by its models" >&2

# A store of an older schema cannot be attached read-only, hence the last one.
$(SAMPLE): notebooks/make_sample.py notebooks/sample_shop.py kern_nb/db/schema_versions.py | $(ENV)
	$(PY) notebooks/make_sample.py

$(OVERRIDES): $(ENV)
	@mkdir -p $(@D)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $@

# Without a display, no browser is opened (a text browser would take over the terminal); the URL is printed anyway.
lab: $(SAMPLE) $(OVERRIDES) ## open JupyterLab on the tour notebook
	@options="--LabApp.default_url=/lab/tree/tour.ipynb $(QUIET)"; \
	if [ "$$(id -u)" = 0 ]; then options="$$options --allow-root"; fi; \
	if [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ]; then options="$$options --no-browser"; fi; \
	cd notebooks && exec ../$(BIN)/jupyter lab $$options

# Four processes: most tests wait for other processes, a database or a disk. Each begins with a row of files, and takes
# from the others when it has finished (by file, the slowest files would be started last).
test: lint types $(SAMPLE) $(HARBOR) ## run lint, types, tests on all engines, tests in a real browser
	$(PY) -m pytest -n 4 --dist worksteal --ignore=tests/browser
	$(MAKE) browser

# With the other frameworks installed: their agents, offline, on stores of every engine, and the tests of their sdists,
# which are downloaded into .venv/peers, on their stores and on ours.
peers: .venv/.peers ## run the tests of bridges to other frameworks, and their own tests on our store
	$(PY) tests/peers/run.py

# Separate, because Playwright leaves an event loop behind, in which no other test can start one.
browser: $(SAMPLE) ## run the tests in a real JupyterLab only
	chromium="$$($(PY) scripts/chromium.py)" && KERN_CHROMIUM="$$chromium" $(PY) -m pytest -n 2 tests/browser

lint: $(ENV) ## check rules and format (ruff), and the direction of imports (import-linter)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo

format: $(ENV) ## fix rules and format (ruff)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

types: $(ENV) ## check types (mypy, strict)
	$(PY) -m mypy

bench: .venv/.bench ## run the benchmarks, beside other libraries
	$(PY) -m benchmarks

docs: .venv/.docs ## generate the pages in docs/ and build the site in build/docs
	$(PY) docs/make.py
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

# On a copy, because the tour branches sessions and the sample store must not change.
demo: $(SAMPLE) ## run the notebooks and convert them to HTML in build/
	@rm -rf build/notebooks && mkdir -p build && cp -R notebooks build/notebooks
	$(PY) -m nbconvert --execute --to html --output-dir build build/notebooks/*.ipynb

screenshots: $(SAMPLE) ## take the pictures in docs/images
	chromium="$$(CI=true $(PY) scripts/chromium.py)" && KERN_CHROMIUM="$$chromium" $(PY) tests/browser/screenshots.py

clean: ## remove the results of the other goals, except .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis $(SAMPLE) $(SAMPLE).wal
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
