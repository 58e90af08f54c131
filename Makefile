# Each target sets up all it needs: a machine with Python >= 3.11, make and a package index is enough.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
USE_CASE ?= digits

.PHONY: run test soak lint check bench bench-storage clean

run: .venv/.installed
	@$(BIN)/evertune run $(USE_CASE)

test: .venv/.installed
	@$(BIN)/pytest

soak: .venv/.installed
	@$(BIN)/pytest -v -rP -n 1 --repetitions 20 tests/production

lint: .venv/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint deployments/worker/Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.azure-pipelines --data-transform azure-pipelines \
		--regex-variant nonunicode azure-pipelines.yml

check: lint test

bench: .venv/.installed
	@$(BIN)/python -m benchmarks

bench-storage: .venv/.installed
	@$(BIN)/python -m benchmarks storage --repeat 5
	@$(BIN)/python -m benchmarks.storage_docs

clean:
	-$(BIN)/evertune services stop
	rm -rf .venv .uv .evertune .metaflow

.venv/.installed: pyproject.toml uv.lock | $(UV)
	UV_COMPILE_BYTECODE=1 $(UV) sync --locked
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv
