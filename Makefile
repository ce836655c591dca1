# make demo: detect at once, then train, test and draw, from a bare clone.   make test: the tests.   make check: format, lint, spelling, types.
# make test-processes: those that start several processes or take a dozen seconds each.   make test-all: all tests, also those that take minutes.   make fuzz: thousands of damaged checkpoints.   make mutants: do tests notice faults?
# make lifecycle: train static, upcycle, fine-tune, export, collapse: one page, from a bare clone.
# make parity: the tests against the original YOLO11, which it installs (AGPL-3.0, for these tests and make bench only).
# make bench: short runs of the benchmarks (benchmarks/README.md), against the original too.
# make ablation-smoke: a comparison of two configs in minutes.   make study: the study of docs/study.md, in hours.
# make docs: the pages, strictly.
# All make the virtual environment .venv once; the second run installs nothing.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: ablation-smoke bench check clean coverage demo docs fuzz help install lifecycle mutants parity parity-all study study-aids study-bccd study-digits study-finetune study-nuclei study-nuclei-obb study-pretraining study-routers study-routing-pilot test test-all test-classify test-mobile test-processes weights
.DEFAULT_GOAL := help

help:  ## show this
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

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

.venv/dev: .venv/deploy requirements/dev.txt requirements/track.txt
	$(BIN)/pip install -q -r requirements/dev.txt -r requirements/track.txt
	@touch $@

install: .venv/runtime  ## make .venv with the package and what it needs

DEMO = yolo11n_dynconv_digits
demo: .venv/runtime  ## detect with packaged weights, then make data, train YOLO11-n with DynamicConv, test it, draw curves; DEMO=CONFIG
	$(BIN)/python tools/mmdyn detect --demo
	$(BIN)/python demo/digits_demo.py --config $(DEMO)

.venv-mobile/ready: .venv/dev requirements/mobile.txt
	$(PYTHON) -m venv .venv-mobile
	ls -d $(CURDIR)/.venv/lib/python*/site-packages > $$(ls -d .venv-mobile/lib/python*/site-packages)/main.pth
	.venv-mobile/bin/pip install -q -r requirements/mobile.txt
	@touch $@

test-mobile: .venv-mobile/ready  ## the tests of Core ML and LiteRT, in an environment beside .venv: their packages slow every start
	.venv-mobile/bin/python -m pytest tests/export/test_mobile.py

# Classification needs mmpretrain, which mmdet imports wherever it is: an environment beside .venv, too.
.venv-classify/ready: .venv/dev requirements/classify.txt
	$(PYTHON) -m venv .venv-classify
	ls -d $(CURDIR)/.venv/lib/python*/site-packages > $$(ls -d .venv-classify/lib/python*/site-packages)/main.pth
	.venv-classify/bin/pip install -q -r requirements/classify.txt
	@touch $@

test-classify: .venv-classify/ready  ## the tests of classification, in an environment beside .venv with mmpretrain
	.venv-classify/bin/python -m pytest -n 2 --dist loadgroup tests/classify tests/test_tasks_by_tools.py -k classif
	.venv-classify/bin/python -m pytest tests/test_doctest.py -k classify

weights: .venv/runtime  ## train the packaged detectors again, 20 minutes on 2 cores; goes on where it stopped
	for name in yolo11n_digits yolo11n_dynconv_digits; do \
		$(BIN)/python tools/train.py $$name --amp --resume --work-dir work_dirs/weights/$$name && \
		$(BIN)/python demo/pack_weights.py $$name $$(cat work_dirs/weights/$$name/last_checkpoint) || exit 1; \
	done

test: .venv/dev  ## run the tests, two at a time
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long and not processes"

test-processes: .venv/dev  ## the tests that start several processes or take a dozen seconds each, and every task by every tool: ten minutes
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "processes and not long"

test-all: .venv/dev  ## run all tests, also those that take minutes each
	$(BIN)/python -m pytest -n 2

fuzz: .venv/dev  ## convert thousands of damaged files: nothing is run, nothing is written
	$(BIN)/python -m pytest tests -k damaged_files -m long

mutants: .venv/dev  ## draw 40 small faults, and see which the tests miss: mutants.json; hours, goes on where it stopped
	$(BIN)/python tests/mutants.py --count 40 --seed 0 --out mutants.json

coverage: .venv/dev  ## lines and branches that make test-all runs, subprocesses included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered

ablation-smoke: .venv/runtime  ## compare two configs on the digits, two seeds each, in minutes: ablation_output/report.html
	rm -rf ablation_output
	$(BIN)/python tools/ablate.py configs/yolo11n_digits.py configs/yolo11n_dynconv-bn_digits.py --seeds 2 --jobs 2 \
		--work-dir ablation_output --cfg-options train_cfg.max_epochs=2 train_cfg.val_interval=1 \
		train_dataloader.dataset.indices=240 train_dataloader.num_workers=1 val_dataloader.num_workers=1

# MORE adds options; `make study-bccd MORE="--report-only --report-dir docs/study/bccd"` writes the report that is published.
ablate = $(BIN)/python tools/ablate.py $(1) --work-dir work_dirs/study_$(2) --seeds 3 --amp --jobs 2 $(MORE) \
	--cfg-options default_hooks.checkpoint.max_keep_ckpts=1 train_dataloader.num_workers=1 val_dataloader.num_workers=1
# control, then the arms
arms = configs/yolo11n_$(1).py configs/yolo11n_dynconv_$(1).py configs/yolo11n_dynconv-bn_$(1).py \
	$(foreach arm,c3k2_dynconv both_dynconv static-wide dynconv-bn_experts1 dynconv-bn_experts2 dynconv-bn_experts8,\
	configs/ablations/yolo11n_$(arm)_$(1).py)
aids = configs/yolo11n_dynconv-bn_digits.py $(foreach aid,softmax softmax-annealed router-lr10,\
	configs/ablations/yolo11n_dynconv-bn_$(aid)_digits.py)
control = work_dirs/study_digits/yolo11n_dynconv-bn_digits
aids_control = work_dirs/study_aids/yolo11n_dynconv-bn_digits
digits_budget = train_cfg.max_epochs=10 train_cfg.val_interval=2 optim_wrapper.optimizer.fused=True

study: study-bccd study-digits study-aids  ## the study of docs/study.md, in hours; needs BCCD (configs/yolo11n_bccd.py says how); goes on where it stopped

study-bccd: .venv/runtime
	$(call ablate,$(call arms,bccd),bccd)

study-digits: .venv/runtime
	$(call ablate,$(call arms,digits),digits) $(digits_budget)

study-aids: .venv/runtime  # its control is an arm of the digits' study, and taken from there if it is there
	if [ -d $(control) ] && [ ! -d $(aids_control) ]; then \
		mkdir -p work_dirs/study_aids && rm -rf work_dirs/control.part && \
		cp -a $(control) work_dirs/control.part && mv work_dirs/control.part $(aids_control); fi
	$(call ablate,$(aids),aids) $(digits_budget)

# Which routers tell images apart, on BCCD: of these, the one for the study of routing is chosen by the spread of its weights.
routers = configs/yolo11n_bccd.py configs/yolo11n_dynconv-bn_bccd.py $(foreach arm,normalised mlp normalised-mlp,\
	configs/ablations/yolo11n_dynconv-bn_$(arm)_bccd.py)
study-routers: .venv/runtime
	$(call ablate,$(routers),routers)

# The study of routing, on DEEPPCB: the pilot of static seeds fixes its epochs and the window of its score.
routing = $(call ablate,$(foreach arm,$(2),configs/$(arm)_deeppcb.py),$(1))
study-routing-%: MORE = --data $(DEEPPCB) --imgsz 320 --latency-rounds 0
study-routing-pilot: .venv/runtime
	$(call routing,routing_pilot,yolo11n) --first-seed 100 --epochs 60

# 480 and 120 images of DEEPPCB, a folder in COCO's format, ten epochs from the packaged static digits and from nothing.
finetune = $(call ablate,$(2),finetune_$(1)) train_dataloader.batch_size=16 \
	train_dataloader.dataset.indices=480 val_dataloader.dataset.indices=120
study-finetune: MORE = --data $(DEEPPCB) --imgsz 320 --epochs 10 --latency-rounds 0
study-finetune: DIGITS = mmdyn/weights/yolo11n_digits.pth
study-finetune: .venv/parity
	$(call finetune,weights,yolo11n_dynconv-bn_coco yolo11n_coco) --weights $(DIGITS)
	$(call finetune,nothing,yolo11n_dynconv-bn_coco)
	$(BIN)/python tests/parity/train_original.py $(DEEPPCB) work_dirs/study_finetune_original --epochs 10 \
		--optimizer auto --first 480 120 --weights $(DIGITS)

# NUCLEI, a folder in COCO's format with outlines, static and dynamic, and the original's static beside them.
study-nuclei study-nuclei-obb: MORE = --data $(NUCLEI) --imgsz 320 --epochs 60 --latency-rounds 0
study-nuclei: .venv/parity
	$(call ablate,segment/yolo11n_coco segment/yolo11n_dynconv_coco,nuclei) train_dataloader.batch_size=16
	$(BIN)/python tests/parity/train_original.py $(NUCLEI) work_dirs/study_nuclei_original --task segment

# The same, with the smallest rectangles around the outlines.
study-nuclei-obb: .venv/parity
	$(call ablate,obb/yolo11n_dota obb/yolo11n_dynconv_dota,nuclei_obb) train_dataloader.batch_size=16
	$(BIN)/python tests/parity/train_original.py $(NUCLEI) work_dirs/study_nuclei_obb_original --task obb

study-pretraining: .venv-classify/ready  ## does pretraining by classification help a dynamic detector more than a static one? hours; goes on where it stopped
	.venv-classify/bin/python demo/pretraining_study.py work_dirs/study_pretraining $(MORE)

.venv/docs: .venv/runtime requirements/docs.txt
	$(BIN)/pip install -q -r requirements/docs.txt
	@touch $@

docs: .venv/docs  ## build the pages in docs/_build, warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "The pages: docs/_build/index.html"

.venv/parity: .venv/dev requirements/parity.txt
	$(BIN)/pip install -q -r requirements/parity.txt
	@touch $@

parity: .venv/parity .venv-classify/ready  ## compare with the original YOLO11: outputs, loss, schedule, AP
	$(BIN)/python -m pytest -n 2 tests/parity -m "not long"
	.venv-classify/bin/python -m pytest tests/parity/test_classify.py -m "not long"

parity-all: .venv/parity .venv-classify/ready  ## the same for the other scales of every task
	$(BIN)/python -m pytest -n 2 tests/parity -m long
	.venv-classify/bin/python -m pytest tests/parity/test_classify.py -m long

bench: .venv/parity  ## time the layer, the detectors and the data pipeline: some minutes on 2 cores
	$(BIN)/python benchmarks/conv_latency.py --short --out bench_output
	$(BIN)/python benchmarks/model_latency.py --short --out bench_output
	$(BIN)/python benchmarks/data_pipeline.py --short --out bench_output
	$(BIN)/python benchmarks/exported_latency.py --short --out bench_output

check: .venv/dev  ## format, lint, spelling and types; the examples of docstrings run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_doctest.py

clean:  ## remove what was built here, the environment included
	rm -rf .venv .venv-classify .venv-mobile build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache ablation_output docs/_build
