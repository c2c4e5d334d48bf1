#!/usr/bin/env bash
# The CPU kernels on processors that are not here: all of them compiled, and their tests, as on
# AVX2 and as on plain x86-64, which has no fused multiply-adds; and LLVM's code of all for ARM.
#
#     ci/processors.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 # small arrays, as in ci/test.sh
export NUMBA_CACHE_DIR="$environment/cache"
"${1:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
. "$environment/bin/activate"
python -m pip install --quiet ".[test]"

export NUMBA_CPU_FEATURES="" # those of the processor that is named
for NUMBA_CPU_NAME in haswell x86-64; do
    export NUMBA_CPU_NAME
    echo "+ $NUMBA_CPU_NAME"
    python -m agnostic_xent warmup
    python -m pytest --numprocesses=auto tests/test_kernels_*.py tests/test_vector_math.py \
        tests/test_losses.py tests/test_convolution_accuracy.py
done
echo "+ ARM"
python tests/processors.py
