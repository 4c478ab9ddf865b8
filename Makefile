# Two commands matter: `make demo` and `make test`. Both install what is missing first.
.PHONY: setup setup-tests demo test check bench clean recording

setup: .venv/.ready

.venv/.ready: setup.sh pyproject.toml requirements.lock
	./setup.sh

setup-tests: .venv/.ready-tests

.venv/.ready-tests: setup.sh pyproject.toml requirements.lock requirements-extras.lock examples/node/package-lock.json
	./setup.sh tests

demo: setup
	.venv/bin/headrace demo

test: setup-tests
	.venv/bin/python -m pytest -n 2 --dist loadfile

check: setup-tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	.venv/bin/python -m bench.all

# the recording that `make demo` shows where BPF is not to be had
recording: setup
	.venv/bin/python -m pipeline.demo --record examples/demo.hrc

clean:
	rm -rf .venv *.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis
