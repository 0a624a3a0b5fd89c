# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Trust what the machine trusts: hospitals have certificate authorities of their own.
export UV_SYSTEM_CERTS := true

.PHONY: demo test test-fast lint types contract bench chaos lock clean

demo: $(VENV)/.installed
	$(BIN)/python -m orchestration.demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --timeout 300

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --timeout 300 -m "not slow and not chaos" -x -q

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

contract: $(VENV)/.installed-dev
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev
	NIGHTREAD_CHAOS_CASES=all $(BIN)/python -m pytest --timeout 600 -m chaos

# One environment, installed from the compiled requirements; uv does it in seconds.
$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Nightread needs Python 3.11 or newer; name one with: make PYTHON=python3.12 demo"; exit 1; }
	@echo "Making an environment in $(VENV) with $$($(PYTHON) --version) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/uv
	@echo "Installing the requirements (torch is large: about 5 GB on disk) ..."
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@touch $@

# Exact versions for every supported Python, without any index address.
lock: | $(VENV)/bin/uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --upgrade \
		pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
		--extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean:
	rm -rf $(VENV) build *.egg-info
