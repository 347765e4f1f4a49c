# make setup | run | test | check | bench: each does the set-up it needs.
PY := .venv/bin/python

.PHONY: setup run test check bench
setup: .venv/.done
.venv/.done: pyproject.toml
	python3 -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e '.[dev]'
	touch $@
run: setup
	$(PY) -m fhir_server.cli serve --auth open --demo
test: setup
	$(PY) -m pytest -m "not slow"
check: setup
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports && $(PY) -m tests.house.rules
bench: setup
	$(PY) -m tests.bench
