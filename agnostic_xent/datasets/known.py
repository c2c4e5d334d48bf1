"""Data sets for examples and benchmarks, as plain NumPy arrays.

The packaged sets need no network: 12,000 images of Fashion-MNIST and the table of Spambase.
The other Fashion-MNIST images come from a folder or a download, the digits from scikit-learn.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.requirements import installing, missing
from .dataset import Dataset, split
from .packaged import packaged

__all__ = ["load_digits", "load_fashion_mnist", "load_spambase"]


class _IdxFile(NamedTuple):
    name: str
    shape: tuple[int, ...]
    crc32: int  # of the unpacked file: MNIST's files have the same names and shapes
    sha256: str  # of the .gz file


_FILES = {
    "train_images": _IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        0xB4F29F28,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train_labels": _IdxFile(
        "train-labels-idx1-ubyte",
        (60_000,),
        0x741A4657,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "test_images": _IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        0x678FE0B1,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "test_labels": _IdxFile(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        0x80142C1F,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_VARIABLE = "AGNOSTIC_XENT_DATA"
_WAYS = (
    f"name a folder that holds the official files (folder= or the variable {_VARIABLE}), "
    f"or `apt install dataset-fashion-mnist`, or `{installing('pooch')}` to download them"
)
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_fashion_mnist(
    which: Literal["embedded", "full"] = "embedded",
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load Fashion-MNIST, 28 x 28 grey images of ten kinds of clothes.

    Parameters
    ----------
    which : {"embedded", "full"}
        "embedded" is the packaged part, the first 1,000 training and 200 test images of each
        class in official order. "full" is all 60,000 and 10,000 images, from the first of:
        `folder`; the environment variable ``AGNOSTIC_XENT_DATA``; the folder of Debian's package
        dataset-fashion-mnist; the cache of pooch, which downloads the files once.
    folder : path, optional
        Folder with the four official IDX files, unpacked or ``.gz``; only for "full".

    Returns
    -------
    Dataset
        Images float32 ``(N, 1, 28, 28)`` in [0, 1], labels int64 ``(N,)``.

    Raises
    ------
    ValueError
        For another `which`, a `folder` with "embedded", a file that is not the official one, or
        a download that fails.
    FileNotFoundError
        If a named folder lacks a file, or the full set is nowhere.

    References
    ----------
    Xiao, Rasul & Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms, https://arxiv.org/abs/1708.07747 (MIT licence).

    Examples
    --------
    >>> data = load_fashion_mnist()
    >>> data.train_x.shape, data.test_x.shape
    ((10000, 1, 28, 28), (2000, 1, 28, 28))
    >>> data.classes[int(data.train_y[0])]
    'Ankle boot'
    """
    if which not in ("embedded", "full"):
        raise ValueError(f"which must be 'embedded' or 'full', got {which!r}")
    if which == "embedded" and folder is not None:
        raise ValueError(f"folder is for which='full' only, got folder={folder!r}")
    if which == "embedded":
        arrays = packaged("fashion_mnist_12k.npz")
    else:
        arrays = {key: _read_idx(key, path) for key, path in _find_files(folder).items()}
    for key in ("train_images", "test_images"):
        arrays[key] = arrays[key][:, None].astype(np.float32)  # (N, 1, 28, 28)
        arrays[key] /= 255
    return Dataset(
        train_x=arrays["train_images"],
        train_y=arrays["train_labels"].astype(np.int64),
        test_x=arrays["test_images"],
        test_y=arrays["test_labels"].astype(np.int64),
        classes=_CLOTHES,
        name="fashion-mnist-12k" if which == "embedded" else "fashion-mnist",
    )


def load_spambase(
    *, test_fraction: float = 0.2, rng: int | np.random.Generator | None = 0
) -> Dataset:
    """Load Spambase, 4601 e-mails described by 57 word and character frequencies.

    The features are skewed, so they are taken as ``log(1 + x)``, then standardised with the mean
    and the standard deviation of the training part.

    Parameters
    ----------
    test_fraction : float
        Part of the rows to hold out, between 0 and 1.
    rng : int, numpy.random.Generator or None
        Seed or generator that shuffles the rows; None takes fresh entropy.

    Returns
    -------
    Dataset
        Features float32 ``(N, 57)``, labels int64 ``(N,)``, 1 for spam.

    Raises
    ------
    TypeError
        If `test_fraction` is not a number, or `rng` is of another type.
    ValueError
        If `test_fraction` leaves a part empty, or `rng` is negative.

    References
    ----------
    Hopkins, Reeber, Forman & Suermondt (1999), Spambase, UCI Machine Learning Repository,
    https://doi.org/10.24432/C53G6X (CC BY 4.0).

    Examples
    --------
    >>> data = load_spambase()
    >>> data.train_x.shape, data.test_x.shape, data.classes
    ((3681, 57), (920, 57), ('ham', 'spam'))
    """
    arrays = packaged("spambase.npz")
    train, test = split(len(arrays["y"]), test_fraction, rng)
    x, y = np.log1p(arrays["X"].astype(np.float64)), arrays["y"].astype(np.int64)
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    std[std == 0] = 1  # a rare word may be missing from a small training part
    x = ((x - mean) / std).astype(np.float32)
    return Dataset(x[train], y[train], x[test], y[test], classes=("ham", "spam"), name="spambase")


def load_digits(
    *, test_fraction: float = 0.2, rng: int | np.random.Generator | None = 0
) -> Dataset:
    """Load the 1797 handwritten digits of scikit-learn, 8 x 8 grey images.

    Parameters
    ----------
    test_fraction : float
        Part of the images to hold out, between 0 and 1.
    rng : int, numpy.random.Generator or None
        Seed or generator that shuffles the images; None takes fresh entropy.

    Returns
    -------
    Dataset
        Images float32 ``(N, 1, 8, 8)`` in [0, 1], labels int64 ``(N,)``.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    TypeError
        If `test_fraction` is not a number, or `rng` is of another type.
    ValueError
        If `test_fraction` leaves a part empty, or `rng` is negative.

    References
    ----------
    Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://doi.org/10.24432/C50P49 (CC BY 4.0).

    Examples
    --------
    >>> data = load_digits()
    >>> data.train_x.shape, data.test_x.shape
    ((1438, 1, 8, 8), (359, 1, 8, 8))
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise missing("load_digits", "scikit-learn") from error
    digits = datasets.load_digits()
    train, test = split(len(digits.target), test_fraction, rng)
    x = (digits.images[:, None] / 16).astype(np.float32)  # (N, 1, 8, 8)
    y = digits.target.astype(np.int64)
    classes = tuple(str(digit) for digit in digits.target_names)
    return Dataset(x[train], y[train], x[test], y[test], classes=classes, name="digits")


def _find_files(folder: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Find the official file of each Fashion-MNIST array."""
    named = folder if folder is not None else os.environ.get(_VARIABLE) or None
    if named is not None:
        source = _VARIABLE if folder is None else "folder"
        return _files_in(Path(named), f"{source}={str(named)!r}")
    try:
        return _files_in(_DEBIAN, str(_DEBIAN))
    except FileNotFoundError as error:
        absent = error
    try:
        import pooch
    except ImportError:
        raise FileNotFoundError(f"the full Fashion-MNIST is not here: {_WAYS}") from absent
    paths = {}
    for key, file in _FILES.items():
        name = f"{file.name}.gz"
        try:
            cached = pooch.retrieve(
                _URL + name,
                f"sha256:{file.sha256}",
                fname=name,
                path=pooch.os_cache("agnostic-xent"),
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the download of {_URL}{name} failed: {error}; else {_WAYS}"
            ) from error
        paths[key] = Path(cached)
    return paths


def holds_fashion_mnist(folder: Path) -> bool:
    """Return whether a folder has a file that is named as one of Fashion-MNIST's."""
    names = [file.name + end for file in _FILES.values() for end in ("", ".gz")]
    return any((folder / name).is_file() for name in names)


def _files_in(folder: Path, label: str) -> dict[str, Path]:
    """Map each Fashion-MNIST array to its file in a folder, ``.gz`` or unpacked."""
    paths = {}
    for key, file in _FILES.items():
        packed, plain = folder / f"{file.name}.gz", folder / file.name
        if not (packed.is_file() or plain.is_file()):
            raise FileNotFoundError(f"{label} has neither {packed.name} nor {plain.name}: {_WAYS}")
        paths[key] = packed if packed.is_file() else plain
    return paths


def _read_idx(key: str, path: Path) -> NDArray[np.uint8]:
    """Read one official IDX file: magic number and sizes as big-endian uint32, then the bytes."""
    _, shape, crc32, _ = _FILES[key]
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(size + 1)  # not all of a file that is anything else
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    start = content[: len(header)]
    if start != header:
        raise ValueError(
            f"{path} is not an IDX file of uint8 {shape}: it starts with the bytes "
            f"{start.hex()}, expected {header.hex()}"
        )
    if len(content) != size:
        there = "more than" if len(content) > size else f"{len(content)} of"
        raise ValueError(f"{path} has {there} the {size} bytes, unpacked, of an official file")
    if zlib.crc32(content) != crc32:
        raise ValueError(
            f"{path} is damaged or of another data set (MNIST has the same file names): its "
            f"CRC-32 is {zlib.crc32(content):#010x}, that of Fashion-MNIST {crc32:#010x}"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
