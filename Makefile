# make demo: one prompt, decoded plainly and with Medusa heads. make test: everything the tests need, and the tests.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The system's, or the one that comes with what the tests need.
CMAKE := $(or $(shell command -v cmake 2>/dev/null),$(BIN)/cmake)

.PHONY: help demo test test-vllm test-sglang docs sanitize sanitize-address sanitize-thread check lint types imports format pictures clean

help:
	@echo "make demo   install into $(VENV), fetch SmolLM2-135M-Instruct (93 MB), decode one prompt both ways"
	@echo "make test   install what the tests need and run them"
	@echo "make test-sglang  the plugin for SGLang, on SGLang's own classes (its wheel is 39 MB)"
	@echo "make test-vllm  install vLLM's CPU build into $(VLLM) (3.5 GB) and compare with it: ten minutes"
	@echo "make docs   the documentation as a site in build/site"
	@echo "make check  lint, types, direction of imports"
	@echo "make pictures  draw docs/pictures anew from the results in benchmarks"
	@echo "make sanitize  the C++ engine under sanitizers for memory, undefined behaviour and threads"

demo: $(VENV)/installed
	@$(BIN)/medusa demo smollm2

test: $(VENV)/installed-test
	@$(BIN)/python -m pytest

# SGLang from PyPI in an environment of its own, without its dependencies: what needs a GPU is replaced in the tests.
test-sglang: .venv-sglang/installed
	@PYTHONPATH=src:.:integrations/sglang/src .venv-sglang/bin/python -m pytest integrations/sglang/tests

.venv-sglang/installed: integrations/sglang/requirements-test.txt $(VENV)/installed-test
	@$(PYTHON) -m venv .venv-sglang
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	    $$(.venv-sglang/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	@.venv-sglang/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

# The heads in the real vLLM, beside this project on the same prompts; the figures go to build/vllm/report.json.
test-vllm: $(VENV)/installed-test $(VLLM)/installed
	@MEDUSA_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python MEDUSA_VLLM_REPORT=build/vllm/report.json \
		$(BIN)/python -m pytest tests/integration/test_vllm.py

# vLLM's CPU build asks for a CPU build of torch, for which those of torchvision and torchaudio are not made.
$(VLLM)/installed: tests/integration/vllm-requirements.txt | $(VENV)/bin/python
	@echo "installing vLLM's CPU build into $(VLLM) (3.5 GB, some minutes, once)" >&2
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# Warnings, of links that lead nowhere for example, are errors; with --quiet MkDocs would not count them. The variable
# silences an advertisement.
docs: $(VENV)/installed-docs
	@said=$$(NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict 2>&1) || { echo "$$said" >&2; exit 1; }

# The C++ engine alone, without Python, on a tiny model, under the compiler's sanitizers.
sanitize: sanitize-address sanitize-thread

sanitize-address: KINDS := address,undefined,float-cast-overflow
sanitize-thread: KINDS := thread
sanitize-address sanitize-thread: sanitize-%: $(filter $(BIN)/cmake,$(CMAKE))
	@$(CMAKE) -S native -B build/sanitize/$* -DMEDUSA_SANITIZE=$(KINDS) >/dev/null
	@$(CMAKE) --build build/sanitize/$* --parallel 2 >/dev/null
	@build/sanitize/$*/native_test

$(BIN)/cmake: $(VENV)/installed-test ;

check: lint types imports

lint: $(VENV)/installed-test
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .

types: $(VENV)/installed-test
	@$(BIN)/mypy --no-error-summary

imports: $(VENV)/installed-test
	@$(BIN)/python tools/check_imports.py

pictures: $(VENV)/installed-test
	@$(BIN)/python tools/draw_pictures.py

format: $(VENV)/installed-test
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("medusa needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt $(wildcard native/*.*) | $(VENV)/bin/python
	@echo "installing medusa and the CPU build of torch into $(VENV) (a few minutes, once)" >&2
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "installing what the tests need" >&2
	@$(PIP) --editable '.[test]'
	@touch $@

# What the extra `docs` names, without the package: its docstrings are read, not imported.
$(VENV)/installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(PIP) $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

clean:
	rm -rf $(VENV) .venv-sglang .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
