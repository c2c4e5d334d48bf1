"""Predictions of nets drawn at random, against onnxruntime and torch in the faster of its layouts.

On the CPU, for batches of several sizes. All have as many threads, the same parameters, and have to
find the same logits before they are timed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import agnostic_xent as ax
from agnostic_xent.kernels.cpu.toolchain.threads import threads

from .conv import LAYOUTS, OURS
from .drawn_nets import Net, draw_net
from .measure import SPREAD, alternate, described, machine, of_seeds, ratio, spread, table, write
from .nets import in_torch

COUNT, QUICK = 8, 2
BATCHES = (1, 8, 64)
PEER = "onnxruntime"
ERROR = 1e-3
"""How far logits may be apart, relative to the largest one."""


def main(quick: bool, inner: str | None, seed: int | None = None, count: int = 0) -> None:
    """Measure the nets of all seeds, or of one, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(seed, count)))
        return
    count = count or (QUICK if quick else COUNT)
    found = of_seeds("infer", quick, seed, count)
    versions = {"onnxruntime": onnxruntime.__version__}
    result = {"machine": machine(), "threads": threads(), "count": count, "nets": found}
    result["machine"]["versions"] |= versions
    write("infer_quick" if quick else "infer", result, report(result))


def measure(seed: int | None, count: int) -> list[dict[str, Any]]:
    """Return times and ratios of predictions by nets of a seed."""
    torch.set_num_threads(threads())
    rng, found = np.random.default_rng(seed), []
    for net in [draw_net(rng) for _ in range(count)]:
        params = net.model.init(rng, net.shape)[0]
        for batch in BATCHES:
            x = rng.standard_normal((batch, *net.shape), dtype=np.float32)
            calls = predictions(net, params, x)
            check(net, calls)
            with torch.inference_mode():
                times = alternate(calls, seconds=1.2, rounds=5)
            seconds = {name: float(np.median(t)) for name, t in times.items()}
            best = min(LAYOUTS, key=seconds.__getitem__)
            ratios = {"onnxruntime": ratio(times, PEER, OURS), "torch": ratio(times, best, OURS)}
            found.append({
                "kind": net.kind, "shape": net.shape, "batch": batch, "seconds": seconds,
                "ratio": ratios,
            })  # fmt: skip
    return found


def predictions(net: Net, params: Any, x: Any) -> dict[str, Callable[[], Any]]:
    """Return what predicts x by each library."""
    predictor = ax.compile_predictor(net.model, params, net.shape)
    session = onnx_session(net, params)
    name = session.get_inputs()[0].name
    calls = {OURS: lambda: predictor(x), PEER: lambda: session.run(None, {name: x})[0]}
    forms = torch.contiguous_format, torch.channels_last
    for layout, form in zip(LAYOUTS, forms, strict=True):
        model = in_torch(net.model, net.shape)
        weights = {name: torch.from_numpy(w.copy()) for name, w in params.items()}
        model.load_state_dict(weights, strict=False)
        model = model.eval().to(memory_format=form)
        images = torch.from_numpy(x).contiguous(memory_format=form)
        calls[layout] = lambda model=model, images=images: model(images)
    return calls


def onnx_session(net: Net, params: Any) -> Any:
    """Return onnxruntime's session of a net, whose threads sleep while they have nothing to do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ax.export_onnx(net.model, params, path, net.shape)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check(net: Net, calls: dict[str, Callable[[], Any]]) -> None:
    """Raise if the logits differ."""
    with torch.inference_mode():
        ours, *others = (np.asarray(call()) for call in calls.values())
    error = max(float(np.abs(y - ours).max() / np.abs(ours).max()) for y in others)
    if not error < ERROR:
        raise AssertionError(f"{net}: logits differ by {error:.1e} of the largest one")


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    found = result["nets"]
    seeds = ", ".join(map(str, sorted({entry["seed"] for entry in found})))
    text = f"""# Predictions of nets drawn at random: float32 on the CPU

Written by `python -m benchmarks infer`: {result["count"]} nets of each seed ({seeds}). Microseconds
a batch: medians of rounds in turns. Ratio: time of the other over ours; of torch in its faster
layout. All logits agree to {ERROR:.1%} of the largest one.

{described(result["machine"])} {result["threads"]} threads each.

"""
    rows = []
    for peer in (PEER, "torch"):
        for batch in BATCHES:
            ratios = [e["ratio"][peer]["median"] for e in found if e["batch"] == batch]
            rows.append([peer, str(batch), *spread(ratios)])
    text += table(["against", "batch", *SPREAD], rows) + "\n"
    rows = []
    for e in found:
        times = [f"{1e6 * e['seconds'][who]:.0f}" for who in (PEER, *LAYOUTS, OURS)]
        ratios = [f"{e['ratio'][peer]['median']:.2f}" for peer in (PEER, "torch")]
        about = [str(e["seed"]), e["kind"], str(tuple(e["shape"])), str(e["batch"])]
        rows.append([*about, *times, *ratios])
    header = ["seed", "kind", "sample", "batch", PEER, *LAYOUTS, OURS]
    return text + table([*header, f"to {PEER}", "to torch"], rows)
