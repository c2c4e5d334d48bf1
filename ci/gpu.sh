#!/usr/bin/env bash
# All that a GPU has to show, in one command without network: ci/gpu.sh [--rehearse] [FOLDER]
#
# The instructions of ptx.py against their stand-ins, the kernels against the portable definitions,
# the test matrix with the rows cupy and torch-cuda, compute-sanitizer where it is installed, and
# the benchmark. It goes on after a failure, writes all it finds into FOLDER (gpu-results), and ends
# in under 9 minutes. --rehearse does the same with the simulator and tiny sizes, without a GPU.
# PYTHON names the interpreter, which has numpy, cupy, numba-cuda, pytest and perhaps torch.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rehearsal=""
if [ "${1:-}" = --rehearse ]; then
    rehearsal=yes
    shift
fi
python=${PYTHON:-python3}
folder=$(mkdir -p "${1:-gpu-results}" && cd "${1:-gpu-results}" && pwd)
cd "$root" || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTEST_ADDOPTS=""
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

if [ "$rehearsal" ]; then
    export NUMBA_ENABLE_CUDASIM=1
    patience=5 # a machine that does other work besides
    rows=numpy
    some=(tests/cuda/test_activations.py tests/cuda/test_on_gpu.py)
    matrix=(tests/test_arrays.py -k "numpy-")
else
    export NUMBA_ENABLE_CUDASIM=0 AGNOSTIC_XENT_TEST_GPU=1
    patience=1
    rows=cupy
    "$python" -c "import torch; assert torch.cuda.is_available()" 2>/dev/null && rows+=,torch-cuda
    some=(tests/cuda)
    matrix=(tests -m gpu --ignore=tests/cuda --ignore=tests/test_cuda_simulator.py
        --deselect tests/test_cuda.py::test_on_the_gpu)
fi
pytest=("$python" -m pytest -q -p no:cacheprovider)

failed=()
step() { # name, seconds, command: run it for so long at most, into a file of that name
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout --kill-after=10 "$((seconds * patience))" "$@" >"$folder/$name.log" 2>&1
    local status=$?
    tail -n 4 "$folder/$name.log"
    echo "== $name: status $status after $((SECONDS - start)) s"
    if [ "$status" -ne 0 ]; then failed+=("$name"); fi
}

if [ -z "$rehearsal" ]; then
    "$python" -c "
from agnostic_xent.core.conversion import backend
try:
    backend('cupy')
except (ImportError, OSError) as error:
    raise SystemExit(f'FAILED: {error}; --rehearse needs no GPU')
" || exit 1
fi
step machine 30 "$python" -c "
import importlib, json
import agnostic_xent
print(json.dumps(agnostic_xent.info(), indent=1))
for name in ('numba_cuda', 'pytest', 'hypothesis'):
    print(name, importlib.import_module(name).__version__)
"
if [ -z "$rehearsal" ]; then
    step card 10 nvidia-smi
    step compile 60 "$python" -m agnostic_xent warmup --backend cupy
fi
step instructions 40 "${pytest[@]}" tests/cuda/test_ptx.py
step kernels 140 "${pytest[@]}" --deselect tests/cuda/test_ptx.py "${some[@]}"
step matrix 90 env "AGNOSTIC_XENT_TEST_BACKENDS=$rows" "${pytest[@]}" \
    --continue-on-collection-errors "${matrix[@]}"
if [ -z "$rehearsal" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        # by the driver itself, not from CuPy's pool, so that the end of each array is known
        step "$tool" 35 env AGNOSTIC_XENT_TEST_POOL=0 compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "${pytest[@]}" -x tests/cuda/test_ptx.py \
            tests/cuda/test_activations.py tests/cuda/test_convolution.py \
            -k "test_load or test_copy or test_mma or test_relu or test_tiles or test_tensor"
    done
else
    echo "== compute-sanitizer: left out, $([ "$rehearsal" ] && echo rehearsal || echo "not installed")"
fi
step benchmark 90 "$python" -m benchmarks gpu --inner "$folder"

if [ "${#failed[@]}" -ne 0 ]; then
    echo "FAILED: ${failed[*]} (see $folder)"
    exit 1
fi
echo "${rehearsal:+rehearsal: }all passed in $SECONDS s: $folder"
