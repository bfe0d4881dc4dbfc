# Everything a newcomer or a CI machine needs. Works with GNU make 3.81 (macOS) and later.
PYTHON  ?=
VENV    := .venv
PY      := $(VENV)/bin/python
READY   := $(VENV)/.ready
TOOLS   := $(VENV)/.tools
SSLYZE  := $(VENV)/sslyze/.ready
PAGES   := adapter/web/static/manifest.json
LOCK    := uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --upgrade

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-real ci lint lint-style lint-types lint-rooms lint-pages audit lock assets docker-test screenshots fuzz clean

help: ## list these targets
	@echo "DermBridge: clinical photographs into the EHR, and back"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY) $(PAGES) ## the whole story on your machine, then keep serving (ONCE=1: stop after the proof)
	@$(VENV)/bin/dermbridge demo $(if $(ONCE),--once)

test: $(READY) $(PAGES) ## the tests that need nothing but Python and no patience (ARGS="-k name" to choose)
	@$(PY) -m pytest -rs -n auto --dist loadfile -m "not real and not long" $(ARGS)

PEERS := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard tests/integration/*/package-lock.json))

%/node_modules/.package-lock.json: %/package-lock.json $(READY)
	@$(PY) -m tools.node npm --prefix $* ci --silent --no-audit --no-fund

# HAPI FHIR: Maven keeps what it fetched in ~/.m2, which a build server may keep between runs.
%/target/classpath: %/pom.xml
	@if command -v mvn >/dev/null; then mvn -B -q -f $< dependency:build-classpath && touch $@; \
	else echo "!!! no Maven here, so no HAPI FHIR: apt-get install default-jdk-headless maven" >&2; fi

test-real: $(TOOLS) $(SSLYZE) $(PAGES) $(PEERS) tests/integration/hapi/target/classpath node_modules/typescript ## the long tests, and those against PostgreSQL, Chromium and other real servers; a missing one is a failure
	@DERMBRIDGE_REQUIRE_REAL=1 $(PY) -m pytest -n auto --dist loadfile -m "real or long" $(ARGS)

ci: ## what the build server runs (as root on Debian it installs what it needs)
	@bash .ci/run

lint: lint-style lint-types lint-rooms lint-pages ## style, types, directions of imports, TypeScript (make -k lint: all at once)

lint-style: $(TOOLS)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

lint-types: $(TOOLS)
	@$(VENV)/bin/mypy

lint-rooms: $(READY)
	@$(VENV)/bin/lint-imports --no-logo

lint-pages: $(READY) node_modules/typescript
	@$(PY) -m tools.node node node_modules/typescript/bin/tsc --noEmit

fuzz: $(READY) ## a minute of coverage-guided fuzzing of what reads HL7 v2 (ARGS="-max_total_time=600")
	@$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install --quiet --require-hashes -r requirements/fuzz.txt
	@$(PY) -m tools.fuzz $(ARGS)

audit: $(TOOLS) ## known vulnerabilities of the locked packages
	@$(PY) -m tools.audit

lock: ## pick the newest allowed packages and lock them by hash (needs uv)
	$(LOCK) pyproject.toml -o requirements/run.txt
	$(LOCK) pyproject.toml --extra test -o requirements/test.txt
	$(LOCK) pyproject.toml --extra test --extra ci -o requirements/ci.txt
	$(LOCK) --group node -o requirements/node.txt
	$(LOCK) --group fuzz -o requirements/fuzz.txt
	$(LOCK) --group sslyze -o requirements/sslyze.txt

assets: $(READY) ## bundle the pages' TypeScript and CSS again
	@$(PY) hatch_build.py

screenshots: $(TOOLS) $(PAGES) ## take the pictures of README.md again (needs Chromium)
	@$(PY) -m tools.screenshots $(ARGS)

docker-test: ## build the images and bring docker-compose.yml up for real (root on Debian, or a Docker engine)
	@BASE="$(BASE)" POSTGRES_IMAGE="$(POSTGRES_IMAGE)" EHR_IMAGE="$(EHR_IMAGE)" bash tests/docker/run.sh

clean: ## remove what was built or installed here; var/ (keys and photos) stays
	rm -rf $(VENV) node_modules build dist adapter/web/static/* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/test.txt requirements/node.txt pyproject.toml hatch_build.py tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh
	@touch $@

$(TOOLS): $(READY) requirements/ci.txt
	@PYTHON="$(PYTHON)" sh tools/setup.sh ci
	@touch $@

$(SSLYZE): $(READY) requirements/sslyze.txt
	@$(PY) -m pip install --quiet --require-hashes --upgrade --target $(@D) -r requirements/sslyze.txt 2>/dev/null
	@touch $@

$(PAGES): $(READY) package.json package-lock.json $(shell find adapter/web/assets -type f 2>/dev/null)
	@$(PY) hatch_build.py
	@touch $@

node_modules/typescript: $(READY) package-lock.json
	@$(PY) -m tools.node npm ci
	@touch $@
