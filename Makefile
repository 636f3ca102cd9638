# Each target does its own set-up: a fresh clone needs nothing but python3 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Bytecode is kept whatever the environment says: or each worker compiles all tests each time.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo check test tools bounds lint figures bench docs

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)  ## train the 3-digit adder until it is proved right, evaluate it, draw the figure
	$(BIN)/addgpt train --task add --digits 3 --until-certified --out results/demo --resume
	$(BIN)/addgpt eval results/demo
	$(BIN)/addgpt figures results/demo
	@echo 'Open results/demo/accuracy_grid.png and results/demo/training_curve.png. Next:'
	@echo '  . .venv/bin/activate'
	@echo '  addgpt calc --model results/demo "128+367"   # ask what you have trained'
	@echo '  addgpt calc --steps "123*456"                # the shipped calculator shows its work'

lint: $(READY)  ## style, the order of imports, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

check: lint  ## lint and the quick tests: under 40 s on two cores
	$(PYTEST) -m "not slow"

test: lint  ## lint and the whole suite, a file of tests to a core
	$(PYTEST)

tools: $(READY)  ## the tests that need other tools: ONNX, lm-eval, TransformerLens, trackio, wandb
	test -x .venv-tools/bin/python || $(PYTHON) -m venv .venv-tools
	grep '^torch==' constraints.txt > .venv-tools/torch.txt  # some tools need other versions of the rest
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-tools/torch.txt -e '.[dev,tools]'
	OMP_NUM_THREADS=1 .venv-tools/bin/python -m pytest -rs tests/test_export.py tests/test_logs.py

bounds:  ## do the lower bounds of setup.cfg hold? with the torch of constraints.txt, all extras
	$(PYTHON) benchmarks/lower_bounds.py .venv-bounds --extra all --keep "$$(grep ^torch== constraints.txt)"

figures: $(READY)  ## redraw every figure of results/
	$(BIN)/addgpt figures results

bench: $(READY)  ## all benchmarks, as ratios; appended to benchmarks/history.csv
	$(BIN)/python -m benchmarks.run

docs: .venv/.docs  ## the pages as a site, in site/; links are checked
	$(BIN)/mkdocs build --strict

.venv/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch .venv/.docs
