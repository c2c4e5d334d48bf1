"""What has to be installed for parts of the package that need more than it brings."""

from __future__ import annotations


def missing(what: str, *packages: str) -> ImportError:
    """Return the error that something cannot run without packages, which pip knows so."""
    return ImportError(f"{what} needs {' and '.join(packages)}: {installing(*packages)}")


def installing(*packages: str) -> str:
    """Return the command that installs packages."""
    quoted = (f'"{name}"' if "[" in name else name for name in packages)  # as shells ask for
    return f"python -m pip install {' '.join(quoted)}"
