# Each target does its own set-up: a fresh clone needs nothing but python3 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint figures bench

$(READY): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)  ## train the 3-digit adder, evaluate it, draw the figure
	$(BIN)/addgpt train --task add --digits 3 --out results/demo --resume
	$(BIN)/addgpt eval results/demo
	$(BIN)/python -m analysis.figures results/demo

lint: $(READY)
	$(BIN)/ruff check .

test: lint  ## lint and the whole suite, a file of tests to a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

figures: $(READY)  ## redraw every figure of results/
	$(BIN)/python -m analysis.figures results

bench: $(READY)  ## all benchmarks, as ratios; appended to benchmarks/history.csv
	$(BIN)/python -m benchmarks.run
