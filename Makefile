# Needs make and Python 3.10 or newer. `make demo` first, `make test` for those who change something.

PYTHON ?= python3
PIP_INSTALL = -m pip --quiet --disable-pip-version-check install

# mcpstore 2.x and 1.5.18 cannot share an environment.
V2 := .venv
V1 := .venv-v1

.PHONY: demo test bench lint clean

demo: $(V2)/.installed
	@$(V2)/bin/storescope demo

# Both runs happen whatever the first one says.
test: $(V2)/.installed-test $(V1)/.installed-test
	@status=0; \
	echo "== mcpstore 2.x"; $(V2)/bin/python -m pytest || status=1; \
	echo "== mcpstore 1.5.18"; $(V1)/bin/python -m pytest tests/integration || status=1; \
	exit $$status

bench: $(V2)/.installed-test $(V1)/.installed-test
	@$(V2)/bin/python -m tests.benchmarks

lint: $(V2)/.installed-lint
	$(V2)/bin/ruff check
	$(V2)/bin/ruff format --check
	$(V2)/bin/mypy
	$(V2)/bin/lint-imports

clean:
	rm -rf $(V2) $(V1) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(V2)/.installed: pyproject.toml
	$(PYTHON) -m venv $(V2)
	$(V2)/bin/python $(PIP_INSTALL) --editable . 'mcpstore>=2.3,<3'
	@touch $@

$(V1)/.installed: pyproject.toml
	$(PYTHON) -m venv $(V1)
	$(V1)/bin/python $(PIP_INSTALL) --editable . 'mcpstore==1.5.18'
	@touch $@

# Dependency groups need pip 25.1.
%/.installed-test: %/.installed
	$*/bin/python $(PIP_INSTALL) 'pip>=25.1'
	$*/bin/python $(PIP_INSTALL) --group test
	@touch $@

%/.installed-lint: %/.installed
	$*/bin/python $(PIP_INSTALL) 'pip>=25.1'
	$*/bin/python $(PIP_INSTALL) --group lint
	@touch $@
