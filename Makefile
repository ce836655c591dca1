# make demo: train, test and draw, from a bare clone.   make test: the tests.   make check: format, lint, types.
# make lifecycle: train static, upcycle, fine-tune, export, collapse: one page, from a bare clone.
# make parity: the tests against the original YOLO11, which it installs (AGPL-3.0, for these tests only).
# make bench: short runs of the benchmarks (benchmarks/README.md), against the original too.
# All make the virtual environment .venv once; the second run installs nothing.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo lifecycle test parity bench check install clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

.venv/runtime: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv/deploy: .venv/runtime requirements/deploy.txt
	$(BIN)/pip install -q -r requirements/deploy.txt
	@touch $@

lifecycle: .venv/deploy  ## the life of a detector: static, upcycled, fine-tuned, exported, collapsed; ends in one page
	$(BIN)/python demo/lifecycle.py

.venv/dev: .venv/deploy requirements/dev.txt
	$(BIN)/pip install -q -r requirements/dev.txt
	@touch $@

install: .venv/runtime  ## make .venv with the package and what it needs

demo: .venv/runtime  ## make data, train YOLO11-n with DynamicConv, test it, draw boxes and curves
	$(BIN)/python demo/digits_demo.py

test: .venv/dev  ## run all tests
	$(BIN)/python -m pytest

.venv/parity: .venv/dev requirements/parity.txt
	$(BIN)/pip install -q -r requirements/parity.txt
	@touch $@

parity: .venv/parity  ## compare with the original YOLO11: outputs, loss, schedule, AP
	$(BIN)/python -m pytest tests/parity

bench: .venv/parity  ## time the layer, the detectors and the data pipeline: some minutes on 2 cores
	$(BIN)/python benchmarks/conv_latency.py --short --out bench_output
	$(BIN)/python benchmarks/model_latency.py --short --out bench_output
	$(BIN)/python benchmarks/data_pipeline.py --short --out bench_output
	$(BIN)/python benchmarks/exported_latency.py --short --out bench_output

check: .venv/dev  ## format, lint and type checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove what was built here, the environment included
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
