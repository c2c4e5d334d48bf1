#!/usr/bin/env bash
# Everything that has to hold, in a new virtual environment: the README's three commands,
# the documentation, lint, types.
# Torch is no dependency of the tests, but its row of the matrix has to run here.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
# small arrays: threads of BLAS only get in each other's way
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
python3 -m venv "$environment"
# shellcheck disable=SC1091
. "$environment/bin/activate"

train=$(python ci/readme_command.py train)
ranks=$(python ci/readme_command.py ranks)
test=$(python ci/readme_command.py test)

echo "+ $train"
eval "$train" | tee "$environment/one"
echo "+ $ranks"
eval "$ranks" | tee "$environment/two"
python - "$environment/one" "$environment/two" <<'PYTHON'
import sys
last = [open(path).read().splitlines()[-1] for path in sys.argv[1:]]
one, two = (float(line.removeprefix("test accuracy: ")) for line in last)
assert min(one, two) >= 0.84, last
assert abs(one - two) <= 0.01, last
PYTHON

python -m pip install --quiet "torch==2.13.0"
echo "+ $test"
export PYTEST_ADDOPTS="--numprocesses=auto"
AGNOSTIC_XENT_TEST_BACKENDS=numpy,numpy-readonly,strict@device1,strict@no_float64,torch,jax,dask \
    bash -c "$test"

python -m pip install --quiet "pip>=25.1" # which knows groups
python -m pip install --quiet --group dev
python -m sphinx --quiet --fail-on-warning docs "$environment/docs"

ruff check .
ruff format --check .
mypy
