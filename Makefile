# Everything runs from here; `make help` explains. Nothing is installed outside .venv except, where
# they are missing, the Debian packages that scripts/ensure-tools names.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz fresh lint format wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A stamp per set of extras: pip runs again when the project file changes.
$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	@echo "installing TinyTrain and the demo's packages into $(VENV) (about a minute)"
	@$(BIN)/pip install $(PIP_FLAGS) -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@echo "installing TinyTrain and the test packages into $(VENV) (about a minute)"
	@$(BIN)/pip install $(PIP_FLAGS) -e '.[demo,test,lint]'
	@touch $@

$(VENV)/.made:
	@scripts/ensure-tools python
	@$(PYTHON) -m venv $(VENV)
	@touch $@

demo: ## Compile the example network, run it on an emulated Cortex-M7, learn ten digits from five examples each
	@scripts/ensure-tools demo
	@$(MAKE) --no-print-directory $(VENV)/.demo
	@$(BIN)/python examples/digits/demo.py

test: ## Run the whole test suite (host, sanitizers, emulated cores)
	@scripts/ensure-tools test
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: ## Run the long studies too
	@scripts/ensure-tools test
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: ## Compile 100,000 changed model files: no traceback, none above 10 s or 2 GB (half an hour)
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/python tests/fuzz/fuzz_driver.py

fresh: ## Run demo and test in a minimal Debian root made for it, as root and as a user with sudo (half an hour)
	@scripts/fresh

lint: ## Check style and types
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: ## Format the Python code
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: ## Build the wheel
	@$(MAKE) --no-print-directory $(VENV)/.test
	$(BIN)/pip wheel $(PIP_FLAGS) --no-deps -w dist .

clean: ## Remove everything that make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
