"""Regenerate the packaged part of Fashion-MNIST from a folder of its official IDX files.

Usage: python ci/make_data.py FOLDER [TARGET]

The same zlib gives the same bytes; another one may pack the same arrays differently.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from agnostic_xent.datasets.known import _find_files, _read_idx

TARGET = Path(__file__).parents[1] / "agnostic_xent" / "data" / "fashion_mnist_12k.npz"


def main(folder: str | Path | None, target: str | Path = TARGET) -> None:
    """Write the first 1,000 training and 200 test images of each class, in official order.

    A folder of None means the places where load_fashion_mnist looks.
    """
    official = {key: _read_idx(key, path) for key, path in _find_files(folder).items()}
    with zipfile.ZipFile(target, "w") as archive:
        for part, count in (("train", 1_000), ("test", 200)):
            labels = official[f"{part}_labels"]
            firsts = [np.flatnonzero(labels == label)[:count] for label in range(10)]
            rows = np.sort(np.concatenate(firsts))
            for key in (f"{part}_images", f"{part}_labels"):
                content = io.BytesIO()
                np.save(content, official[key][rows], allow_pickle=False)
                # Not np.savez: it leaves the level and the time stamp to the Python version.
                entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    main(*sys.argv[1:])
