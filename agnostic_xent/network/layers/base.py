"""What all layers are: the base class, and layers that are one operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ...core.arrays import Array
from ...core.cached import cached_property
from ...core.checks import generator
from ...core.operation import Operation, explain, kernels
from ..onnx_graph import OnnxGraph

Params: TypeAlias = dict[str, Array]
Shape: TypeAlias = tuple[int, ...]
LayerPullback: TypeAlias = Callable[[Array], tuple[Array | None, Params]]
"""Takes dy, the gradient of an output; returns dx, and the gradients of the parameters."""
WithPullback: TypeAlias = tuple[Array, LayerPullback]

STATISTICS = ("running_mean", "running_var")


def split_statistics(grads: Mapping[str, Array]) -> tuple[Params, Params]:
    """Split what a pullback returns into gradients and new running statistics."""
    statistics = {k: v for k, v in grads.items() if k.rpartition(".")[2] in STATISTICS}
    if not statistics:
        return dict(grads), statistics
    return {k: v for k, v in grads.items() if k not in statistics}, statistics


class Pass(NamedTuple):
    """What is wanted of a way through a layer and back."""

    train: bool = True
    """Whether layers such as `Dropout` do what they do in training alone."""
    rng: Any = None
    """What random layers draw from."""
    input_grad: bool = True
    """Whether the pullback has to return dx."""
    param_grads: bool = True
    """Whether it has to return the gradients of the parameters."""

    def options(self) -> dict[str, Any]:
        """Return the options of `Layer.vjp`, with which all parameters have gradients."""
        return {"train": self.train, "rng": self.rng, "input_grad": self.input_grad}

    def shared(self) -> Pass:
        """Return the same with one generator, from which several layers draw in turn.

        Without a seed each layer makes one of its own, if it needs any: that takes as long as a
        small layer.
        """
        return self if self.rng is None else self._replace(rng=generator(self.rng))


class Layer:
    """The base of all layers.

    A layer has to define `forward`; `init` if it has parameters; `to_onnx` if it can be exported;
    `children` and `rebuilt` if it is made of layers.
    """

    trained: ClassVar[bool] = True
    """Whether the parameters, if it has some, are learnt from gradients."""

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        return {}, self._output_shape({}, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.vjp(params, x, train=False, input_grad=False)[0]

    def vjp(
        self,
        params: Mapping[str, Array],
        x: Array,
        *,
        train: bool = True,
        rng: Any = None,
        input_grad: bool = True,
    ) -> WithPullback:
        """Return the output and its pullback: dy -> (dx, grads)."""
        return self.forward(params, x, Pass(train, rng, input_grad))

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        raise NotImplementedError(f"{type(self).__name__} has to define forward")

    def children(self) -> dict[str, Layer]:
        """Return the layers that this one is made of, by what their parameters' names begin with.

        Those of "body" are named "body.weight" and so on.
        """
        return {}

    def rebuilt(self, children: Mapping[str, Layer]) -> Layer:
        """Return the same layer made of others, which have the names that `children` gives."""
        raise NotImplementedError(f"{type(self).__name__} has to define rebuilt")

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append this layer's nodes to a graph, for inference.

        Parameters
        ----------
        graph : OnnxGraph
            Where ``graph.node("Relu", x)`` appends a node and returns the name of its output.
        x : str
            The name of this layer's input.

        Returns
        -------
        str
            The name of this layer's output.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it is written in ONNX: "
            "its class has to define to_onnx"
        )

    def _output_shape(self, params: Params, shape: Shape) -> Shape:
        import numpy as np

        with kernels("portable"):  # one blank sample; it passes all of the operation's checks
            return tuple(self(params, np.zeros((1, *shape), dtype="float32")).shape[1:])

    def _fused(self) -> Layer:
        """Return the layer as it runs: layers within it that run as one are one."""
        children = self.children()
        if not children:
            return self
        return self.rebuilt({name: child._fused() for name, child in children.items()})

    def _explained(self, params: Mapping[str, Array], x: Array) -> list[str]:
        """Return what `explain` says of the operations that run in training."""
        return []


@dataclass(frozen=True)
class OperationLayer(Layer):
    """A layer that is one operation of x; its fields, if it has some, are the operation's options.

    Written in a line, without options, and what the same is called in ONNX::

        class Tanh(OperationLayer):
            operation, onnx_node = tanh, "Tanh"
    """

    operation: ClassVar[Operation[Any, Any]]
    onnx_node: ClassVar[str] = ""
    """The kind of node that does the same in ONNX, to x alone; empty where there is none."""

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.operation(*self._arrays(params, x), **self._options)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        y, pullback = self.operation.vjp(x, **self._options_in(how))
        return y, lambda dy: (pullback(dy)[0] if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node(self.onnx_node, x) if self.onnx_node else super().to_onnx(graph, x)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        """Return what the operation takes: x, and perhaps parameters."""
        return (x,)

    def _options_in(self, how: Pass) -> dict[str, Any]:
        """Return the options of the operation in a pass."""
        return self._options

    def _explained(self, params: Mapping[str, Array], x: Array) -> list[str]:
        options = self._options_in(Pass(rng=0))
        return [explain(self.operation, *self._arrays(params, x), **options)]
