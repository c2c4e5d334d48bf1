"""An ONNX graph while layers append their nodes to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..core.requirements import missing


def import_onnx() -> Any:
    """Return the package onnx, which is optional."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise missing("export_onnx", "onnx") from error
    return onnx


class _Layer(Protocol):
    def init(self, rng: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]: ...

    def to_onnx(self, graph: OnnxGraph, x: str) -> str: ...


@dataclass(frozen=True)
class OnnxGraph:
    """A graph as one layer sees it: the nodes that it appends get names of its own.

    Parameters
    ----------
    params : collection of str
        Names of all parameters of the model.
    shapes : dict
        Shapes of one sample of the input and of the layers' outputs, by name.
    """

    params: Collection[str]
    shapes: dict[str, tuple[int, ...]]
    element: int
    """ONNX's number of the dtype of the input and the parameters."""
    prefix: str = ""
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, name: str, child: _Layer, x: str) -> str:
        """Append the nodes of a layer's child, given the child's name and that of its input x.

        Return the name of its output.
        """
        y = child.to_onnx(replace(self, prefix=f"{self.prefix}{name}." if name else self.prefix), x)
        self.note_shape(child, x, y)
        return y

    def note_shape(self, layer: _Layer, x: str, y: str) -> None:
        """Remember the shape of a layer's output y, given the names of it and of its input x."""
        if y not in self.shapes:
            self.shapes[y] = layer.init(0, self.shapes[x])[1]

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node, such as "Relu", to what ``inputs`` name; return the name of its output."""
        taken = {node.name for node in self.nodes}
        names = (f"{self.prefix}{kind}{number}" for number in ("", *range(2, len(taken) + 3)))
        name = next(name for name in names if name not in taken)
        make = import_onnx().helper.make_node
        self.nodes.append(make(kind, inputs, [name], name=name, **attributes))
        return name

    def padded(self, x: str, pads: Sequence[int], value: float) -> str:
        """Append a node that pads samples with a value: so much before each axis, then behind each.

        Return the name of its output: x, without a node, if there is nothing to add.
        """
        if not any(pads):
            return x
        rank = len(pads) // 2
        sides = self.constant("pads", [0, 0, *pads[:rank], 0, 0, *pads[rank:]])
        return self.node("Pad", x, sides, self.filled("fill", [], value))

    def parameters(self, *names: str) -> list[str]:
        """Return the full names of the layer's parameters out of ``names`` that it has."""
        return [self.prefix + name for name in names if self.prefix + name in self.params]

    def filled(self, name: str, shape: Sequence[int], value: float) -> str:
        """Add an array of the dtype of the input, all of one value, and return its full name."""
        full, count = self.prefix + name, math.prod(shape)
        make = import_onnx().helper.make_tensor
        self.constants.append(make(full, self.element, shape, [value] * count))
        return full

    def constant(self, name: str, values: Sequence[int]) -> str:
        """Add a vector of integers to the graph, and return its full name."""
        onnx, full = import_onnx(), self.prefix + name
        make = onnx.helper.make_tensor
        self.constants.append(make(full, onnx.TensorProto.INT64, [len(values)], values))
        return full
