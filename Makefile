# `make` lists the targets. PORT=8000 moves demo and dev; ONCE=1 ends the demo after its table; HARVEST=0 leaves the
# demo's first harvest out. FULL=1 measures what takes long, ONLY=row,row some rows, WRITE=1 puts them into the docs.
PORT ?= 8000
ONCE ?= 0
HARVEST ?= 1
FULL ?= 0
WRITE ?= 0

SHELL := /bin/bash
PYTHON := .venv/bin/python
MANAGE := $(PYTHON) manage.py
SQLITE = DATABASE_URL="sqlite:///$(CURDIR)/var/$(1)/db.sqlite3"
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/pip-compile --quiet --strip-extras --allow-unsafe \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help demo dev test faults check openapi bench bench-api clean lock

help:
	@echo "make demo    the demonstration lab: shares, storage, web server, a first harvest (ONCE=1, HARVEST=0, PORT=8000)"
	@echo "make test    the checks and all the tests"
	@echo "make check   format, lint, types, import rules, missing migrations, deployment settings, diagrams, API"
	@echo "make dev     web server, worker and beat, which start anew when the source changes (PORT=8000)"
	@echo "make openapi writes docs/openapi.yaml from the code, which make check compares"
	@echo "make faults  every lie of a hostile file server on every way of the product, of which make test tries a fifth"
	@echo "make bench   harvests beside rclone, in 12 minutes (FULL=1 the rows that take longer, ONLY=row,row, WRITE=1)"
	@echo "make bench-api  lists of files among a million of them, on PostgreSQL"
	@echo "make lock    resolves requirements/*.in into the lock files"
	@echo "make clean   removes .venv, the demonstration and caches; leaves the data of make dev alone"

# Each stamp is newer than the lock files it stands for, so that nothing is installed twice.
.venv/installed-run: requirements.txt bin/setup
	bin/setup requirements.txt
	@touch $@

.venv/installed-demo: requirements.txt requirements/demo.txt bin/setup
	bin/setup requirements.txt requirements/demo.txt
	@touch $@

.venv/installed-test: requirements.txt requirements/demo.txt requirements/test.txt bin/setup
	bin/setup requirements.txt requirements/demo.txt requirements/test.txt
	@touch $@

demo: .venv/installed-demo
	@bin/debian smbd=samba || echo "Without Samba the demonstration serves its shares with impacket's SMB server."
	@$(call SQLITE,demo) $(MANAGE) demo --directory var/demo --port $(PORT) \
		$(if $(filter-out 0,$(ONCE)),--once) $(if $(filter 0,$(HARVEST)),--no-harvest)

dev: .venv/installed-run
	@$(MANAGE) up --dev --port $(PORT)

faults: .venv/installed-test
	bin/debian smbd=samba postgres=postgresql
	$(PYTHON) -m pytest --whole-matrix -m matrix

test: .venv/installed-test
	bin/debian smbd=samba postgres=postgresql redis-server=redis-server xxhsum=xxhash
	$(MAKE) --no-print-directory check
	$(PYTHON) -m pytest

check: .venv/installed-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(call SQLITE,check) .venv/bin/mypy
	.venv/bin/lint-imports
	$(call SQLITE,check) $(MANAGE) makemigrations --check --dry-run
	$(call SQLITE,check) STREAMWEAVE_HTTPS=true ALLOWED_HOSTS=streamweave.example.org ARK_NAAN=12345 \
		$(MANAGE) check --deploy --fail-level WARNING
	$(call SQLITE,check) $(MANAGE) diagram --check docs/states.md
	$(call SQLITE,check) $(MANAGE) spectacular --fail-on-warn --validate --file var/check/openapi.yaml
	diff -u docs/openapi.yaml var/check/openapi.yaml || { echo "The API has changed: make openapi, and look at what." >&2; exit 1; }

openapi: .venv/installed-test
	$(call SQLITE,check) $(MANAGE) spectacular --fail-on-warn --validate --file docs/openapi.yaml

bench-api: .venv/installed-test
	bin/debian postgres=postgresql
	$(PYTHON) -m tests.bench.api

bench: .venv/installed-test
	@bin/debian smbd=samba smbclient=smbclient postgres=postgresql redis-server=redis-server
	$(PYTHON) -m tests.bench $(if $(filter-out 0,$(FULL)),--full) $(if $(ONLY),--only $(ONLY)) \
		$(if $(filter-out 0,$(WRITE)),--write)

lock:
	@[ -x .venv/bin/pip-compile ] || { bin/setup && $(PYTHON) -m pip install --quiet pip-tools; }
	$(COMPILE) -o requirements.txt requirements/base.in
	$(COMPILE) -c requirements.txt -o requirements/demo.txt requirements/demo.in
	$(COMPILE) -c requirements.txt -c requirements/demo.txt -o requirements/test.txt requirements/test.in

clean:
	rm -rf .venv var/demo var/check .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
