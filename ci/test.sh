#!/usr/bin/env bash
# Everything that has to hold, cheap things first, in new virtual environments:
#
#     ci/test.sh [lint] [types] [readme] [tests] [docs] [gpu]      without names: all of them
#
# Needs python3 >= 3.11 and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# small arrays: threads of BLAS only get in each other's way
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

environment() { # name: make it once, and use it
    [ -d "$folder/$1" ] || python3 -m venv "$folder/$1"
    # shellcheck disable=SC1090
    . "$folder/$1/bin/activate"
}

tools() { # what pip installs, beside what is there
    environment tools
    python -m pip install --quiet "pip>=25.1" # which knows dependency groups
    python -m pip install --quiet "$@"
}

lint() {
    tools --group lint
    ruff check .
    ruff format --check .
}

types() { # mypy reads those of the packages that have some
    tools --group lint ".[mpi,plot]"
    mypy
}

readme() { # the first two commands; the third is what `tests` runs
    environment user
    local train ranks
    train=$(python ci/readme_command.py train)
    ranks=$(python ci/readme_command.py ranks)
    echo "+ $train"
    eval "$train" | tee "$folder/one"
    echo "+ $ranks"
    eval "$ranks" | tee "$folder/two"
    python - "$folder/one" "$folder/two" <<'PYTHON'
import sys
last = [open(path).read().splitlines()[-1] for path in sys.argv[1:]]
one, two = (float(line.removeprefix("test accuracy: ")) for line in last)
assert min(one, two) >= 0.84, last
assert abs(one - two) <= 0.01, last
PYTHON
}

tests() { # torch is no dependency of the tests, but its row of the matrix has to run here
    environment user
    python -m pip install --quiet "torch==2.13.0"
    local test
    test=$(python ci/readme_command.py test)
    echo "+ $test"
    # XLA takes longer to optimize small programs than they run; ci/versions.sh lets it
    PYTEST_ADDOPTS="--numprocesses=auto" JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
        AGNOSTIC_XENT_TEST_BACKENDS=numpy,numpy-readonly,strict@device1,strict@no_float64,torch,jax,dask \
        bash -c "$test"
}

docs() {
    tools --group docs ".[sklearn]"
    python -m sphinx --quiet --fail-on-warning docs "$folder/html"
}

gpu() { # the command for a GPU, rehearsed where there is a Python such as images for GPUs have
    for version in 3.14 3.13 3.12; do
        export PYENV_VERSION=$version # which alone lets pyenv run it
        if "python$version" -c "" 2>/dev/null; then
            ci/gpu_image.sh "python$version"
            return
        fi
    done
    echo "left out: there is no Python 3.12 or newer"
}

steps=("$@")
[ $# -ne 0 ] || steps=(lint types readme tests docs gpu)
for step in "${steps[@]}"; do
    case $step in
    lint | types | readme | tests | docs | gpu) ;;
    *)
        echo "usage: ci/test.sh [lint] [types] [readme] [tests] [docs] [gpu]" >&2
        exit 2
        ;;
    esac
    echo "== $step"
    "$step"
    echo "== $step: passed after $SECONDS s"
done
