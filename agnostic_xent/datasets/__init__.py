"""Data sets as plain NumPy arrays: those of the package, and pictures and tables of one's own."""

from .dataset import Dataset
from .images import load_images
from .known import load_digits, load_fashion_mnist, load_spambase
from .recordings import Recordings, load_watch
from .tables import load_table

__all__ = [
    "Dataset",
    "Recordings",
    "load_digits",
    "load_fashion_mnist",
    "load_images",
    "load_spambase",
    "load_table",
    "load_watch",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # as everywhere: a pickle names no file of the package
