"""Three jobs from files to a model that works: here, and by a quick start of another library.

A folder of photos, a table with texts and holes, and a folder of ``.npy`` files. The others are
torch's quick start (the same network, Adam with its usual rate, batches of 32, for as long as ours
took) and scikit-learn's LogisticRegression behind its own transformers. Photos and table are drawn.
Lines are those of the functions below, without imports. Then the default CNNClassifier, against the
same network in torch by three recipes of a minute.
"""

from __future__ import annotations

import inspect
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from PIL import Image, ImageDraw, ImageOps
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from agnostic_xent import CNNClassifier, LogisticRegression, save_report
from agnostic_xent.datasets import load_fashion_mnist, load_images, load_table

from .measure import described, machine, table, write

SEEDS = (0, 1)
PHOTOS = {"train": 240, "test": 100}
"""Of each class."""
ROWS, IMAGES, MINUTE = 20_000, 5_000, 60.0
ARRAYS = "train_x", "train_y", "test_x", "test_y"


def main(quick: bool, inner: str | None, seed: int | None = None) -> None:
    """Measure the jobs and the minute, of all seeds or of one, and write the results."""
    seeds = (0,) if quick else SEEDS if seed is None else (seed,)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {"machine": machine(), "threads": cores}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        files = {name: draw(Path(folder), quick) for name, (draw, _, _) in JOBS.items()}
        result["jobs"] = [
            {"job": name, "seed": seed, **done(*JOBS[name][1:], files[name], seed)}
            for name in JOBS
            for seed in seeds
        ]
        result["minute"] = [minute(files["arrays"], seed, MINUTE / 10**quick) for seed in seeds]
    write("jobs_quick" if quick else "jobs", result, report(result))


def done(here: Any, there: Any, path: Path, seed: int) -> dict[str, float]:
    """Do a job in both ways; return accuracy, seconds and lines of each."""
    start = time.perf_counter()
    accuracy = here(path, seed)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    others = there(path, seed, stop=start + seconds)
    return {
        "accuracy": accuracy, "seconds": seconds, "lines": lines_of(here),
        "other accuracy": others, "other seconds": time.perf_counter() - start,
        "other lines": lines_of(there),
    }  # fmt: skip


def lines_of(function: Callable[..., Any]) -> int:
    """Return the lines of a function's body; of what it is made of, too."""
    lines = inspect.getsource(function).splitlines()[1:]
    made = sum(lines_of(part) + 1 for part in PARTS if f"{part.__name__}(" in "\n".join(lines))
    return sum(map(bool, map(str.strip, lines))) + made


# --- a folder of photos --------------------------------------------------------------------------


def photos_here(folder: Path, seed: int) -> float:
    data = load_images(folder)
    classifier = CNNClassifier(augment="images", epochs=30, batch_size=64, random_state=seed)
    classifier.fit(data.train_x, data.train_y)
    save_report("report.html", classifier, data.test_x, data.test_y)
    return classifier.score(data.test_x, data.test_y)


def photos_there(folder: Path, seed: int, stop: float) -> float:
    torch.manual_seed(seed)
    x, y = pictures(folder / "train", 64)
    test_x, test_y = pictures(folder / "test", 64)
    net = network(3, 4, len(set(y.tolist())))
    trained(net, x, y, torch.optim.Adam(net.parameters(), lr=1e-3), stop)
    with torch.no_grad():
        return float((net.eval()(test_x).argmax(1) == test_y).float().mean())


def pictures(folder: Path, side: int) -> tuple[Any, Any]:
    files = sorted(folder.glob("*/*"))
    classes = sorted({file.parent.name for file in files})
    images = [Image.open(file).convert("RGB") for file in files]
    fitted = [ImageOps.fit(ImageOps.exif_transpose(image), (side, side)) for image in images]
    x = torch.from_numpy(np.stack([np.asarray(image) for image in fitted])).permute(0, 3, 1, 2)
    y = torch.tensor([classes.index(file.parent.name) for file in files])
    return (x.float() / 255 - 0.5) / 0.5, y


def network(channels: int, pools: int, classes: int) -> Any:
    layers: list[Any] = []
    for i, filters in enumerate((32, 64, 128, 256)):
        layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(filters), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i < pools else []
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, classes))


def trained(net: Any, x: Any, y: Any, optimizer: Any, stop: float) -> None:
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    while time.perf_counter() < stop:
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()


def draw_photos(folder: Path, quick: bool) -> Path:
    """Write photos of six kinds of shapes: JPEG and PNG, 60 to 200 pixels, gray and in colour."""
    rng = np.random.default_rng(0)
    for part, count in PHOTOS.items():
        for name in SHAPES:
            (folder / "photos" / part / name).mkdir(parents=True)
            for i in range(count // (10 if quick else 1)):
                suffix = "png" if rng.random() < 0.3 else "jpg"
                photo(rng, SHAPES[name]).save(folder / "photos" / part / name / f"{i}.{suffix}")
    return folder / "photos"


SHAPES = {
    "cross": [(r, a) for k in range(4) for r, a in
              ((0.35, 90 * k - 45), (1.0, 90 * k - 17), (1.0, 90 * k + 17))],
    "disc": [(1.0, 10.0 * k) for k in range(36)],
    "half": [(1.0, 10.0 * k) for k in range(19)],
    "square": [(1.0, 90.0 * k) for k in range(4)],
    "star": [((1.0, 0.45)[k % 2], 36.0 * k) for k in range(10)],
    "triangle": [(1.0, 120.0 * k) for k in range(3)],
}  # fmt: skip
"""Their corners: distance from the middle, and degrees."""


def photo(rng: np.random.Generator, corners: list[tuple[float, float]]) -> Image.Image:
    """Return a turned shape before a ground that is darker on one side, with noise on both."""
    width, height = rng.integers(60, 201, 2)
    rows, columns = np.mgrid[:height, :width]
    slope = rng.uniform(-60, 60, 3) * (rows / height)[..., None]
    slope += rng.uniform(-60, 60, 3) * (columns / width)[..., None]
    image = Image.fromarray((rng.uniform(60, 195, 3) + slope).clip(0, 255).astype(np.uint8))
    radius, turn = rng.uniform(0.2, 0.42) * min(width, height), rng.uniform(0, 360)
    middle = rng.uniform(0.45, 0.55, 2) * (width, height)
    points = [
        (middle[0] + radius * r * math.cos(angle), middle[1] + radius * r * math.sin(angle))
        for r, angle in ((r, math.radians(degrees + turn)) for r, degrees in corners)
    ]
    ImageDraw.Draw(image).polygon(points, fill=tuple(map(int, rng.integers(0, 256, 3))))
    noisy = np.asarray(image) + rng.normal(0, rng.uniform(3, 20), (height, width, 1))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return image.convert("L") if rng.random() < 0.3 else image


# --- a table -------------------------------------------------------------------------------------


def table_here(path: Path, seed: int) -> float:
    data = load_table(path, label="left", rng=seed)
    classifier = LogisticRegression().fit(data.train_x, data.train_y)
    save_report("report.html", classifier, data.test_x, data.test_y)
    return classifier.score(data.test_x, data.test_y)


def table_there(path: Path, seed: int, stop: float) -> float:
    frame = pandas.read_csv(path)
    x, y = frame.drop(columns="left"), frame["left"]
    x, test_x, y, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (texts, make_column_selector(dtype_exclude="number")),
    )
    model = make_pipeline(columns, SklearnLogisticRegression()).fit(x, y)
    return model.score(test_x, test_y)


def draw_table(folder: Path, quick: bool) -> Path:
    """Write customers, who leave or stay: numbers on several scales, texts, and holes."""
    rng, rows = np.random.default_rng(0), ROWS // (10 if quick else 1)
    months, plan = rng.exponential(24, rows), rng.integers(0, 3, rows)
    minutes, calls = rng.normal(3000, 900, rows), rng.poisson(1.5, rows)
    score = 0.9 - 0.06 * months + np.array([1.2, 0.0, -1.5])[plan] + 0.9 * calls
    score -= 0.0006 * minutes - rng.logistic(0, 1, rows)
    frame = pandas.DataFrame({
        "months": months.round(1), "minutes": minutes.round(), "calls": calls,
        "plan": np.array(["prepaid", "basic", "family"])[plan],
        "town": np.array(["Lyon", "Bonn", "Cork", "Oslo"])[rng.integers(0, 4, rows)],
    })  # fmt: skip
    holes = rng.random(frame.shape) < 0.05
    frame.mask(holes).assign(left=np.where(score > 0, "yes", "no")).to_csv(
        folder / "customers.csv", index=False
    )
    return folder / "customers.csv"


# --- a folder of arrays --------------------------------------------------------------------------


def arrays_here(folder: Path, seed: int) -> float:
    x, y, test_x, test_y = (np.load(folder / f"{name}.npy") for name in ARRAYS)
    classifier = CNNClassifier(random_state=seed).fit(x, y)
    save_report("report.html", classifier, test_x, test_y)
    return classifier.score(test_x, test_y)


def arrays_there(folder: Path, seed: int, stop: float) -> float:
    torch.manual_seed(seed)
    x, y, test_x, test_y = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ARRAYS)
    x, test_x = ((images[:, None].float() / 255 - 0.5) / 0.5 for images in (x, test_x))
    net = network(1, 3, 10)
    trained(net, x, y, torch.optim.Adam(net.parameters(), lr=1e-3), stop)
    with torch.no_grad():
        return float((net.eval()(test_x).argmax(1) == test_y).float().mean())


def save_arrays(folder: Path, quick: bool) -> Path:
    """Write images of Fashion-MNIST as bytes."""
    data, count = load_fashion_mnist(), IMAGES // (10 if quick else 1)
    folder = folder / "arrays"
    folder.mkdir()
    parts = data.train_x[:count], data.train_y[:count], data.test_x, data.test_y
    for name, part in zip(ARRAYS, parts, strict=True):
        levels = np.round(255 * part[:, 0]).astype(np.uint8) if part.ndim == 4 else part
        np.save(folder / f"{name}.npy", levels)
    return folder


PARTS = (network, pictures, trained)
JOBS: dict[str, tuple[Any, Any, Any]] = {
    "photos": (draw_photos, photos_here, photos_there),
    "table": (draw_table, table_here, table_there),
    "arrays": (save_arrays, arrays_here, arrays_there),
}


# --- a minute ------------------------------------------------------------------------------------


def minute(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Return accuracies of the default classifier, also of one that uses the time, and of torch."""
    x, y, test_x, test_y = (np.load(folder / f"{name}.npy") for name in ARRAYS)
    start = time.perf_counter()
    classifier = CNNClassifier(random_state=seed).fit(x, y)
    took = time.perf_counter() - start
    found = {"seed": seed, "seconds": took, "default": classifier.score(test_x, test_y)}
    found["epochs"] = int(classifier.n_iter_ * seconds / took)
    whole = CNNClassifier(epochs=found["epochs"], random_state=seed).fit(x, y)
    found["whole minute"] = whole.score(test_x, test_y)
    for name in RECIPES:
        found[name] = by_torch(x, y, test_x, test_y, name, seed, seconds)
    return found


def by_torch(x: Any, y: Any, test_x: Any, test_y: Any, name: str, seed: int, seconds: float) -> Any:
    """Return the accuracy of torch's network after so many seconds of training by a recipe."""
    torch.manual_seed(seed)
    x, test_x = ((torch.from_numpy(a)[:, None].float() / 255 - 0.286) / 0.353 for a in (x, test_x))
    net, (made, rate_at) = network(1, 3, 10), RECIPES[name]
    optimizer = made(net.parameters())
    loader = DataLoader(TensorDataset(x, torch.from_numpy(y)), batch_size=64, shuffle=True)
    start = time.perf_counter()
    while (elapsed := (time.perf_counter() - start) / seconds) < 1:
        for images, labels in loader:
            optimizer.param_groups[0]["lr"] = rate_at(elapsed)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
            if (elapsed := (time.perf_counter() - start) / seconds) >= 1:
                break
    with torch.no_grad():
        return float((net.eval()(test_x).argmax(1) == torch.from_numpy(test_y)).float().mean())


def one_cycle(elapsed: float) -> float:
    """Return a rate that rises for a twentieth of the time, then falls to 0 along half a cosine."""
    return 5e-3 * min(20 * elapsed, 1.0) * (1 + math.cos(math.pi * min(elapsed, 1.0))) / 2


RECIPES: dict[str, tuple[Callable[[Any], Any], Callable[[float], float]]] = {
    "SGD 0.05, momentum 0.9": (
        lambda w: torch.optim.SGD(w, lr=0.05, momentum=0.9), lambda elapsed: 0.05
    ),
    "Adam 0.001": (torch.optim.Adam, lambda elapsed: 1e-3),
    "AdamW to 0.005 and back": (lambda w: torch.optim.AdamW(w, weight_decay=0.05), one_cycle),
}  # fmt: skip


# --- what is written -----------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    rows = []
    for name in JOBS:
        runs = [run for run in result["jobs"] if run["job"] == name]
        cells = [name, str(runs[0]["lines"]), str(runs[0]["other lines"])]
        for key, form in (("accuracy", "{:.3f}"), ("seconds", "{:.1f}")):
            cells += [", ".join(form.format(r[k]) for r in runs) for k in (key, f"other {key}")]
        rows.append(cells)
    header = ["job", "lines", "lines there", "accuracy", "there", "seconds", "there"]
    minutes = [
        [str(run["seed"]), f"{run['default']:.3f} in {run['seconds']:.0f} s",
         f"{run['whole minute']:.3f} in {run['epochs']} epochs",
         *(f"{run[key]:.3f}" for key in RECIPES)]
        for run in result["minute"]
    ]  # fmt: skip
    seeds = ", ".join(str(run["seed"]) for run in result["minute"])
    return f"""# Jobs, from files to a model that works

Written by `python -m benchmarks jobs`, seeds {seeds}. {described(result["machine"])}
{result["threads"]} threads. Ours also write a report.

{table(header, rows)}
The default CNNClassifier on {IMAGES:,} images of Fashion-MNIST, the same with as many epochs as
{MINUTE:.0f} seconds allow, and the same network in torch by three recipes of {MINUTE:.0f} seconds:

{table(["seed", "default", "of a minute", *RECIPES], minutes)}"""
