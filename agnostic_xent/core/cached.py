"""Properties that are computed once, which ``torch.compile`` can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class cached_property(Generic[R]):
    """What `functools.cached_property` is, without the lock that it has in Python 3.11."""

    def __init__(self, function: Callable[[Any], R]):
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Any = None) -> R:
        value = self._function(instance)
        instance.__dict__[self._name] = value
        return value
