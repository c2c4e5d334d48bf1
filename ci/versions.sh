#!/usr/bin/env bash
# The README's training command and the tests, in a new virtual environment, with the oldest
# versions that pyproject.toml allows or with the newest there are:
#
#     ci/versions.sh lowest|newest [PYTHON]
#
# Torch is no dependency of the tests: its row of the matrix runs in ci/test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
lowest) resolution=lowest-direct ;; # of what pyproject.toml names; the rest is the newest
newest) resolution=highest ;;
*)
    echo "usage: ci/versions.sh lowest|newest [PYTHON]" >&2
    exit 2
    ;;
esac
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 # small arrays, as in ci/test.sh
export NUMBA_CACHE_DIR="$environment/cache"     # other versions keep theirs in the same places
"${2:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
. "$environment/bin/activate"
python -m pip install --quiet uv

# pip then finds all that it needs in the versions that uv has chosen
uv pip install --quiet --resolution "$resolution" .
train=$(python ci/readme_command.py train)
echo "+ $train"
eval "$train"

uv pip install --quiet --resolution "$resolution" ".[test]"
uv pip list
test=$(python ci/readme_command.py test)
echo "+ $test"
export PYTEST_ADDOPTS="--numprocesses=auto"
export AGNOSTIC_XENT_TEST_EVERY_CAPABILITY=1 # of GPUs: ci/test.sh has no time for all
eval "$test"
