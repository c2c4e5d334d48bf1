"""Regenerate the packaged watch data from that of the package seglearn (1.2.5), a pickled dict.

Usage: python ci/make_signals.py FOLDER/seglearn/data/watch_dataset.npy [TARGET]

Numbers are rounded to 1/256 and stored as differences of what follows each other. The same zlib
gives the same bytes.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from agnostic_xent.datasets.recordings import STEPS

TARGET = Path(__file__).parents[1] / "agnostic_xent" / "data" / "watch.npz"


def main(source: str | Path, target: str | Path = TARGET) -> None:
    """Write all recordings, with what was done, by whom and on which side."""
    found = np.load(source, allow_pickle=True).item()
    levels = np.rint(np.concatenate(found["X"]) * STEPS).astype(np.int64)  # (steps, channels)
    arrays = {
        "differences": np.diff(levels.T, prepend=0).astype(np.int16),
        "lengths": np.asarray([len(x) for x in found["X"]], np.int16),
        "labels": found["y"].astype(np.uint8),
        "people": found["subject"].astype(np.uint8),
        "sides": found["side"].astype(np.uint8),
    }
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    main(*sys.argv[1:])
