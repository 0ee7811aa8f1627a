# Each target also works by hand: see docs/benchmarks.md.
PYTHON ?= python

.PHONY: bench bench-quick

# All benchmarks at full size; about two hours, on a machine that does nothing else.
bench:
	$(PYTHON) benchmarks/run.py

# A look at everything in some minutes; its results are thrown away.
bench-quick:
	$(PYTHON) benchmarks/run.py --rounds 1 --seconds 2 --size 1000000 --out "$$(mktemp -d)"

# One of them, as in: make bench-http
bench-%:
	$(PYTHON) benchmarks/run.py $*
