#!/usr/bin/env bash
# ci/gpu.sh rehearsed in an environment such as images for GPUs have: Python 3.12 or newer, the
# newest NumPy, plugins of pytest, and neither this package nor array-api-compat installed.
#
#     ci/gpu_image.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export NUMBA_CACHE_DIR="$folder/cache"
"${1:-python3}" -m venv "$folder/image"
# shellcheck disable=SC1091
. "$folder/image/bin/activate"
python -c "import sys; assert sys.version_info >= (3, 12), f'Python 3.12 or newer, not {sys.version}'"
python -m pip install --quiet "numpy>=2.5" numba "cupy-cuda13x>=14" "numba-cuda>=0.30" \
    "cuda-toolkit[cccl,cudart,nvrtc,nvvm]==13.0.*" "nvidia-nvjitlink==13.0.*" greenlet \
    pytest pytest-benchmark pytest-cov pytest-mock pytest-timeout pytest-xdist anyio jaxtyping
python -m pip download --quiet --no-deps --only-binary :all: --dest "$folder/wheels" \
    array-api-compat array-api-extra hypothesis sortedcontainers
python -c "
import importlib.util, numpy
assert not importlib.util.find_spec('array_api_compat')
assert not hasattr(numpy, 'row_stack'), 'this NumPy has what numba-cuda asks for'
"
ci/gpu.sh --rehearse --wheels "$folder/wheels" "$folder/results"
# what the simulator leaves out: a kernel of each family as machine code
python -m pip install --quiet --no-deps "$folder"/wheels/*.whl
PYTHONPATH=$PWD python - <<'PYTHON'
from agnostic_xent.kernels.cuda.toolchain.compiling import compile_for
from agnostic_xent.kernels.cuda.warmup import modules, variants_of

for module in modules():
    for kernel in variants_of(module)[:1]:
        bounds = kernel.threads, kernel.blocks
        code = compile_for((9, 0), kernel.function, kernel.parameters, bounds)
        print(f"{module}: {kernel}, {len(code.cubin)} bytes")
PYTHON
