# Two commands matter: `make demo` and `make test`. Both install what is missing first.
.PHONY: setup setup-tests setup-docs setup-fuzz demo test test-kernels check docs man reference bench fuzz clean recording

setup: .venv/.ready

.venv/.ready: setup.sh pyproject.toml requirements.lock
	./setup.sh

setup-tests: .venv/.ready-tests

.venv/.ready-tests: setup.sh pyproject.toml requirements.lock requirements-extras.lock examples/node/package-lock.json
	./setup.sh tests

setup-fuzz: .venv/.ready-fuzz

.venv/.ready-fuzz: .venv/.ready-tests requirements-fuzz.lock
	./setup.sh fuzz

setup-docs: .venv/.ready-docs

.venv/.ready-docs: .venv/.ready requirements-docs.lock
	./setup.sh docs

demo: setup
	.venv/bin/headrace demo

test: setup-tests
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 1

# on other kernels, booted by qemu, two at a time: KERNELS="--kernel 6.1 --smoke" chooses (tests/guests)
KERNELS = --jobs 2

test-kernels: setup-tests
	.venv/bin/python -m tests.guests $(KERNELS)

check: setup-tests docs man
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# the documentation as a site in site/; a broken link is an error
docs: setup-docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

# man pages, in build/man, from the same help as --help
man: setup-docs
	.venv/bin/python -m headrace.pipeline.command.manual build/man

# the pages of docs/reference that are generated
reference: setup
	.venv/bin/python -m headrace.pipeline.command.reference
	.venv/bin/python -m headrace.workers.decode.described

bench: setup
	.venv/bin/python -m bench.all

# of each target; FUZZ="sigma wire --seconds 600" chooses some, and an end (docs/explanation/fuzzing.md)
INPUTS = 10000000
FUZZ =

fuzz: setup-fuzz
	.venv/bin/python -m tests.fuzz $(FUZZ) --inputs $(INPUTS) --result bench/results/fuzz.json

# the recording that `make demo` shows where BPF is not to be had
recording: setup
	.venv/bin/python -m headrace.pipeline.command.demo --record pipeline/command/demo.hrc

clean:
	rm -rf .venv *.egg-info build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
