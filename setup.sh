#!/bin/sh
# What headrace needs on a Debian 12 machine, installed where it is missing: Debian's bcc (its namesake
# on PyPI is something else; headrace finds it by itself), a C compiler for the demonstration's and the tests' loads, and a virtual
# environment in the checkout with the locked Python packages. `setup.sh tests` installs what only the
# tests need as well: a Docker Engine (with containerd) and podman, which they start for themselves, busybox for
# their image, and what the examples stand on: pyarrow, polars, and Node with zeromq. `setup.sh fuzz` adds atheris
# to that, which `make fuzz` needs and no test does; `setup.sh docs` what `make docs` builds the site with.
set -eu
cd "$(dirname "$0")"

tests=""
case "${1:-}" in tests | fuzz) tests=yes ;; esac

need=""
add() { need="$need $1"; }
[ -d /usr/lib/python3/dist-packages/bcc ] || add python3-bpfcc
python3 -c 'import ensurepip, venv' 2>/dev/null || add python3-venv
command -v cc >/dev/null 2>&1 || add gcc
ldconfig -p 2>/dev/null | grep -q libseccomp.so.2 || add libseccomp2
[ -e /usr/include/stdio.h ] || add libc6-dev
echo 'int main(void){return 0;}' | cc -m32 -x c -o /dev/null - 2>/dev/null || add gcc-multilib
if [ -n "$tests" ]; then
	command -v dockerd >/dev/null 2>&1 || add docker.io
	[ -x /bin/busybox ] || add busybox-static
	command -v podman >/dev/null 2>&1 || add podman
	command -v runc >/dev/null 2>&1 || add runc
	command -v npm >/dev/null 2>&1 || add npm
fi
if [ -n "$need" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "setup: these packages are missing and only root can install them:$need" >&2
		exit 77
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086
	apt-get install -y -qq --no-install-recommends $need >/dev/null
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
if [ -n "$tests" ]; then
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-extras.lock
	# without it, the test of the example in Node says so and is left out
	npm ci --silent --no-audit --no-fund --prefix examples/node || echo 'setup: npm could not install zeromq' >&2
fi
[ "${1:-}" != docs ] ||
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-docs.lock
[ "${1:-}" != fuzz ] ||
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .

# exit and exit_group are taken from tracepoints that tracefs names
if [ "$(id -u)" = 0 ] && [ ! -d /sys/kernel/tracing/events ]; then
	mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
fi
touch .venv/.ready
[ -z "$tests" ] || touch .venv/.ready-tests
[ "${1:-}" != docs ] || touch .venv/.ready-docs
[ "${1:-}" != fuzz ] || touch .venv/.ready-fuzz
