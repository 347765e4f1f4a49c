# Each target does the set-up it needs: `make run` and `make test` are all a fresh clone wants.
PY := .venv/bin/python
PYTHON ?= python3

.PHONY: setup run test test-slow test-again fuzz check bench clean
setup: .venv/.done
.venv/.done: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed (set PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up .venv (first time only) ..."
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(PY) -m compileall -q conformance terminology mappers fhir_server
	@$(PY) -m fhir_server.cli doctor
	@touch $@

run: setup
	@$(PY) -m fhir_server.cli serve --auth open --demo

test: setup
	$(PY) -m pytest -m "not slow and not fuzz" -n 2

test-slow: setup
	$(PY) -m pytest -m slow -n 2 --dist loadfile

test-again: setup
	$(PY) -m pytest --last-failed --last-failed-no-failures none

fuzz: setup
	$(PY) -m pytest -m fuzz -s

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m tests.house.rules

bench: setup
	$(PY) -m tests.bench

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
