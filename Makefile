# The two commands of the README are `make demo` and `make test`; CONTRIBUTING.md tells the others.
# Needs Python 3.11 or newer with its venv module: `make demo PYTHON=python3.12` picks one, and
# `make demo APP=shop.wsgi:application PORT=8081` another application and another port.

PYTHON ?= python3
APP ?= samples/guestbook/app.py
PORT ?= 8080

.PHONY: help demo test test-offline lint format venv lock docs bench bench-quick bench-instructions clean python

help:
	@echo "make demo          the guestbook behind a web server, on this machine"
	@echo "make test          everything, on every Python here, real web servers included"
	@echo "make test-offline  what needs neither network nor root"
	@echo "make lint          ruff and mypy          make format   let ruff mend"
	@echo "make venv          the development environment, in .venv"
	@echo "make docs          the generated pages    make lock     pin newer versions"
	@echo "make bench-quick   gateways beside other servers, in a minute    make bench   all of docs/speed.md"

demo: python
	@$(PYTHON) .ci/environment.py .venv demo
	@.venv/bin/gateways demo $(APP) --port $(PORT)

test: python
	@$(PYTHON) tests/run.py

test-offline: python
	@$(PYTHON) tests/run.py --offline

lint: venv
	@.venv/bin/python tests/run.py --lint

format: venv
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

venv: python
	@$(PYTHON) .ci/environment.py .venv dev

docs: venv
	.venv/bin/python -m tests.docs_tables
	.venv/bin/python -m tests.doctor.pages

# On the distribution's interpreter, whatever PYTHON is: it is the optimised one (BENCH_PYTHON=... picks another).
bench: python
	@$(PYTHON) -m benchmarks full

bench-quick: python
	@$(PYTHON) -m benchmarks quick

bench-instructions: python
	@$(PYTHON) -m benchmarks instructions gateways-fcgi gateways-fcgi-close gateways-scgi gateways-fcgi-t8

# Resolve on Python 3.11 (make lock PYTHON=python3.11), because a newer one may choose versions
# that the older cannot run.
lock: python
	@$(PYTHON) .ci/environment.py --lock .venvs/lock

clean:
	rm -rf .venv .venvs .mypy_cache .pytest_cache .ruff_cache .hypothesis dist samples/guestbook/instance
	find gateways tests samples .ci -name __pycache__ -prune -exec rm -rf {} +

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is not there, or older than Python 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
