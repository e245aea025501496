# Needs make and Python 3.10 or newer. `make demo` to see it work; `make test` for those who change something.

PYTHON ?= python3
INSTALL := -m pip --quiet --disable-pip-version-check install

# One environment for each release of mcpstore: the generations cannot share one. The first is the demo's as well.
NEWEST := .venv
OLDEST := .venv-v2-oldest
V1 := .venv-v1
$(NEWEST)/.installed: MCPSTORE = mcpstore>=2.3,<3
$(OLDEST)/.installed: MCPSTORE = mcpstore==2.1.0
$(V1)/.installed: MCPSTORE = mcpstore==1.5.18

.PHONY: demo test e2e bench lint clean

demo: $(NEWEST)/.installed
	@$(NEWEST)/bin/storescope demo

# Every run is made, whatever the one before it says; those of the older releases beside the first, and shown after it.
# Beside mcpstore 1.5.18 there is no MCP SDK 2.x: a server that is built on it runs in the other environment.
test: $(NEWEST)/.installed-test $(OLDEST)/.installed-test $(V1)/.installed-test
	@status=0; shown=$$(mktemp); \
	{ others=0; \
	echo "== mcpstore 2.1.0"; $(OLDEST)/bin/python -m pytest -m mcpstore2 tests/integration || others=1; \
	echo "== mcpstore 1.5.18"; STORESCOPE_TEST_MCP2_PYTHON=$(NEWEST)/bin/python $(V1)/bin/python -m pytest \
		-m 'mcpstore1 or anystore or mcpsdk' tests/guide tests/integration || others=1; \
	exit $$others; } >$$shown 2>&1 & \
	echo "== mcpstore 2.x, newest"; $(NEWEST)/bin/python -m pytest || status=1; \
	wait $$! || status=1; cat $$shown; rm -f $$shown; exit $$status

# Needs Go as well: Jaeger and the Collector are built, once, into a cache outside the tree.
e2e: $(NEWEST)/.installed-e2e $(V1)/.installed-e2e
	@tests/e2e/backends/build >/dev/null
	@status=0; \
	echo "== mcpstore 2.x, newest"; $(NEWEST)/bin/python -m pytest tests/e2e || status=1; \
	echo "== mcpstore 1.5.18"; $(V1)/bin/python -m pytest -m 'mcpstore1 or anystore' tests/e2e || status=1; \
	exit $$status

bench: $(NEWEST)/.installed-bench $(V1)/.installed-test
	@$(NEWEST)/bin/python -m tests.benchmarks

lint: $(NEWEST)/.installed-lint
	$(NEWEST)/bin/ruff check
	$(NEWEST)/bin/ruff format --check
	$(NEWEST)/bin/mypy
	$(NEWEST)/bin/lint-imports

clean:
	rm -rf $(NEWEST) $(OLDEST) $(V1) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

%/.installed: pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python $(INSTALL) --editable . '$(MCPSTORE)'
	@touch $@

# Dependency groups need pip 25.1. Each group is installed by a rule of its own, so that one run of make may ask for two.
.SECONDEXPANSION:
$(foreach group,test bench e2e lint,$(addsuffix /.installed-$(group),$(NEWEST) $(OLDEST) $(V1))): $$(@D)/.installed
	$(@D)/bin/python $(INSTALL) 'pip>=25.1'
	$(@D)/bin/python $(INSTALL) --group $(subst .installed-,,$(@F))
	@touch $@
