#!/usr/bin/env bash
# All that a GPU has to show, in one command without network:
#
#     ci/gpu.sh [--rehearse] [--only PART,PART] [--wheels FOLDER] [--code FOLDER] [FOLDER]
#
# The parts: machine, card, compile; instructions (those of ptx.py against their stand-ins); kernels
# (against the portable definitions); benchmark; matrix (the rows cupy and torch-cuda); memcheck and
# racecheck (of compute-sanitizer, where it is installed). It goes on after a failure, ends in under
# 9 minutes, and leaves at most four files in FOLDER (gpu-results), up to date after each part.
#
# --rehearse  the same with the simulator and tiny sizes, without a GPU
# --only      these parts alone, such as those that failed before
# --wheels    a folder of wheels for what is not installed, such as array-api-compat and hypothesis
# --code      machine code that "warmup --backend cupy --out" has written; the rest is compiled
#
# PYTHON names the interpreter, which has numpy, cupy, numba-cuda, pytest and perhaps torch.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rehearsal="" only="" wheels="" code="" folder=gpu-results
while [ $# -gt 0 ]; do
    case $1 in
    --rehearse) rehearsal=yes ;;
    --only) only=$2 && shift ;;
    --wheels) wheels=$(cd "$2" && pwd) && shift ;;
    --code) code=$(cd "$2" && pwd) && shift ;;
    *) folder=$1 ;;
    esac
    shift
done
python=${PYTHON:-python3}
folder=$(mkdir -p "$folder" && cd "$folder" && pwd)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
cd "$root" || exit 1

PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ "$wheels" ]; then # unpacked, since compiled code cannot be imported from an archive
    for wheel in "$wheels"/*.whl; do "$python" -m zipfile -e "$wheel" "$logs/wheels"; done
    PYTHONPATH+=":$logs/wheels"
fi
export PYTHONPATH PYTHONUNBUFFERED=1 PYTEST_ADDOPTS="" JAX_PLATFORMS=cpu # it takes memory else
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
if [ "$code" ]; then export AGNOSTIC_XENT_CUDA_CODE=$code; fi
if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
    export CUDA_HOME # where numba-cuda looks for its libraries
fi

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
    matrix=(tests -m gpu --ignore=tests/cuda
        --ignore=tests/test_cuda_ptx.py --ignore=tests/test_cuda_simulator.py
        --deselect tests/test_cuda.py::test_on_the_gpu)
fi
pytest=("$python" -m pytest -q -p no:cacheprovider)
at_once=()
if [ -z "$rehearsal" ] && "$python" -c "import xdist" 2>/dev/null; then at_once=(-n 8); fi

failed=()
part() { # name, seconds, command: run it for so long at most, and pack what it says
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    if [ "$only" ] && [[ ",$only," != *",$name,"* ]]; then return; fi
    echo "== $name: $*"
    timeout --kill-after=10 "$((seconds * patience))" "$@" >"$logs/$name.log" 2>&1
    local status=$?
    tail -n 4 "$logs/$name.log"
    echo "== $name: status $status after $((SECONDS - start)) s" | tee -a "$logs/summary.txt"
    tar -czf "$folder/logs.tar.gz" -C "$logs" --exclude ./wheels .
    cp "$logs/summary.txt" "$folder"
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
part machine 30 "$python" -c "
import importlib, json, os
import agnostic_xent
print(json.dumps(agnostic_xent.info(), indent=1))
for name in ('numba_cuda', 'pytest', 'hypothesis'):
    try:
        print(name, importlib.import_module(name).__version__)
    except ImportError as error:
        print(error)
if os.environ['NUMBA_ENABLE_CUDASIM'] == '0':
    importlib.import_module('numba.cuda.cudadrv.libs').test()
"
if [ -z "$rehearsal" ]; then
    part card 10 nvidia-smi
    part compile 60 "$python" -m agnostic_xent warmup --backend cupy
fi
part instructions 40 "${pytest[@]}" tests/cuda/test_ptx.py
part kernels 120 "${pytest[@]}" "${at_once[@]}" --deselect tests/cuda/test_ptx.py "${some[@]}"
part benchmark 110 "$python" -m benchmarks gpu --inner "$folder"
part matrix 90 env "AGNOSTIC_XENT_TEST_BACKENDS=$rows" "${pytest[@]}" "${at_once[@]}" \
    --continue-on-collection-errors "${matrix[@]}"
if [ -z "$rehearsal" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        # by the driver itself, not from CuPy's pool, so that the end of each array is known
        part "$tool" 35 env AGNOSTIC_XENT_TEST_POOL=0 compute-sanitizer --tool "$tool" \
            --report-api-errors no --error-exitcode 9 "${pytest[@]}" -x tests/cuda/test_ptx.py \
            tests/cuda/test_activations.py tests/cuda/test_convolution.py \
            -k "test_load or test_copy or test_mma or test_relu or test_tiles or test_tensor"
    done
else
    echo "== compute-sanitizer: left out, $([ "$rehearsal" ] && echo rehearsal || echo "not installed")"
fi

if [ "${#failed[@]}" -ne 0 ]; then
    echo "FAILED: ${failed[*]} (see $folder)"
    exit 1
fi
echo "${rehearsal:+rehearsal: }all passed in $SECONDS s: $folder"
