"""How far rounding may lead convolutions away.

An error is compared with the root of the sum of squares of all that is added up for a number, times
the roundings that follow each other. Where an algorithm goes through other numbers than the
products themselves, as Winograd's does, these are what is squared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from convolution_case import Reference

from agnostic_xent.kernels.cpu.conv.column_transforms import PLACES, of_pixels, weight_matrix
from agnostic_xent.kernels.cpu.conv.row_plans import cut_of
from agnostic_xent.kernels.cpu.conv.tiling import Stride1, Stride2, Stride2Gradient
from agnostic_xent.kernels.cpu.conv.winograd_transforms import SCHEMES


class DirectSpread:
    """Roots of sums of squares, and how many roundings follow each other."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.squares = Reference(np.square(x, dtype="f8"), np.square(w, dtype="f8"), options)

    def value(self, b: Any) -> tuple[Any, int]:
        squares = None if b is None else np.square(b, dtype="f8")
        return np.sqrt(self.squares.value(squares)), self.squares.w[0, 0].size + 1

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        spread = np.sqrt(self.squares.input_gradient(np.square(dy, dtype="f8")))
        return spread, self.squares.w[0, :, 0].size

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        spread = np.sqrt(self.squares.weight_gradient(np.square(dy, dtype="f8")))
        return spread, dy[:, 0].size


# --- Winograd's algorithm -----------------------------------------------------------------


class Plain:
    """The arithmetic of the transforms, on numbers."""

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def subtract(self, x: Any, y: Any) -> Any:
        return x - y

    def plus(self, factor: float, x: Any, y: Any) -> Any:
        return factor * x + y

    def times(self, factor: float, x: Any) -> Any:
        return factor * x


def matrix(transform: Any, size: int) -> Any:
    """Return the matrix of a transform."""
    return np.array(transform(Plain(), list(np.eye(size))))


class Points:
    """The matrices of a class of tilings, and the roundings of its transforms."""

    def __init__(self, tiling: Any):
        self.scheme = SCHEMES[tiling]
        side, self.read, self.step, self.written = tiling.SIZES
        self.of_input = matrix(self.scheme.of_input, self.read)
        self.of_output = matrix(self.scheme.of_output, side)
        self.of_weights = matrix(self.scheme.of_weights, 3)
        # two directions, and the operations and inexact constants of each
        self.roundings = 2 * (2 + 4 + (3 if side == 6 else 4))
        self.roundings_back = 2 * (2 + 2 + 6)


POINTS = {tiling: Points(tiling) for tiling in SCHEMES}


def points_of(stride: Any) -> tuple[Points, Points]:
    """Return those of the value and weight gradient, and those of the input gradient."""
    classes = (Stride1, Stride1) if stride in (1, (1, 1)) else (Stride2, Stride2Gradient)
    return POINTS[classes[0]], POINTS[classes[1]]


class WinogradSpread:
    """The same where all is summed by way of the points of a tile."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.plain = Reference(x, w, options)
        self.x, self.w = self.plain.x**2, self.plain.w**2
        (self.top, _), (self.left, _) = self.plain.margins
        self.points, self.points_back = points_of(self.plain.stride)

    def value(self, b: Any) -> tuple[Any, int]:
        terms = self.w.shape[2] + self.points.roundings + 1
        squares = correlated(self.x, self.w, (self.top, self.left), self.plain.output, self.points)
        squares = squares.reshape(len(self.x), -1, *self.plain.output)
        bias = 0 if b is None else np.square(b, dtype="f8")[:, None, None]
        return np.sqrt(squares + bias), terms

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        turned = np.swapaxes(self.w, 1, 2)[..., ::-1, ::-1]
        corner = (0, 0) if self.points_back.written == 8 else (2 - self.top, 2 - self.left)
        dy = self.plain.split(dy) ** 2
        squares = correlated(dy, turned, corner, self.plain.image, self.points_back)
        terms = turned.shape[2] + self.points_back.roundings
        return np.sqrt(squares.reshape(self.plain.x_shape)), terms

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        dy, p, size = self.plain.split(dy) ** 2, self.points, self.plain.output
        v = tiles(self.x, (self.top, self.left), size, (p.read, p.step, p.written))
        g = tiles(dy, (0, 0), size, (p.written, p.written, p.written))
        v, g = transformed(p.of_input, v), transformed(p.of_output.T, g)
        du = np.einsum("ngkabij,ngcabij->gkcij", g, v, optimize=True)
        squares = transformed(p.of_weights.T, du).reshape(self.plain.w_shape)
        return np.sqrt(squares), g[:, 0, 0, :, :, 0, 0].size + p.roundings_back


def correlated(x: Any, w: Any, corner: tuple[int, int], output: Any, p: Points) -> Any:
    """Return sums of squares of a Winograd convolution, from squares."""
    v = transformed(p.of_input, tiles(x, corner, output, (p.read, p.step, p.written)))
    m = np.einsum("gkcij,ngcabij->ngkabij", transformed(p.of_weights, w), v, optimize=True)
    y = np.swapaxes(transformed(p.of_output, m), -3, -2)  # (..., tile rows, 4, tile columns, 4)
    y = y.reshape(*y.shape[:3], p.written * y.shape[3], p.written * y.shape[5])
    return y[..., : output[0], : output[1]]


def transformed(matrix: Any, squares: Any) -> Any:
    return matrix**2 @ squares @ matrix.T**2


def tiles(x: Any, corner: tuple[int, int], output: Any, sizes: tuple[int, int, int]) -> Any:
    """Return all tiles of an image: (..., rows, columns, read, read); sizes as of a tiling."""
    read, step, written = sizes
    places = [
        np.arange(-(-n // written))[:, None] * step + np.arange(read) - first
        for n, first in zip(output, corner, strict=True)
    ]
    (rows, rows_in), (columns, columns_in) = (
        (np.clip(p, 0, n - 1), (p >= 0) & (p < n)) for p, n in zip(places, x.shape[3:], strict=True)
    )
    found = x[..., rows[:, None, :, None], columns[None, :, None, :]]
    return found * (rows_in[:, None, :, None] & columns_in[None, :, None, :])


# --- Winograd's algorithm down the columns --------------------------------------------------------


class ColumnPoints:
    """The matrices of Winograd's algorithm down the columns, for a window of so many rows."""

    roundings = 5 + 8 + 8
    """Of the transforms of pixels, of weights or cotangents, and to outputs or gradients."""

    def __init__(self, window: int):
        self.written = 8 + 1 - window
        self.of_input = matrix(of_pixels, 8)
        self.of_weights = weight_matrix(window, np.float64)
        powers = np.vander(PLACES, self.written, increasing=True).T
        self.of_output = np.hstack([powers, np.eye(self.written)[:, -1:]])


class ColumnSpread:
    """The same where all is summed by way of points down the columns."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.plain, self.direct = Reference(x, w, options), DirectSpread(x, w, options)
        self.points = ColumnPoints(-(-self.plain.window[0] // self.plain.stride[0]))

    def value(self, b: Any) -> tuple[Any, int]:
        squares = self.correlated(self.plain)
        bias = 0 if b is None else np.square(b, dtype="f8")[:, None, None]
        channels, window = self.plain.w.shape[2], self.plain.window[1]
        terms = channels * self.plain.stride[0] * window + self.points.roundings + 1
        return np.sqrt(squares + bias), terms

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        plain = self.plain
        if plain.stride != (1, 1):
            return self.direct.input_gradient(dy)
        turned = np.swapaxes(plain.w, 1, 2)[..., ::-1, ::-1]
        margins = [
            (k - 1 - first, n - size + first)
            for k, (first, _), n, size in zip(
                plain.window, plain.margins, plain.image, plain.output, strict=True
            )
        ]
        options = {"groups": plain.groups, "padding": tuple(margins)}
        back = Reference(dy, turned.reshape(-1, *turned.shape[2:]), options)
        terms = turned.shape[2] * plain.window[1] + self.points.roundings
        return np.sqrt(self.correlated(back)), terms

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        plain, p = self.plain, self.points
        rows, margin = -(-plain.output[0] // p.written), [(0, 0)] * 3
        below = rows * p.written - plain.output[0]
        dy = np.pad(plain.split(dy) ** 2, [*margin, (0, below), (0, 0)])
        dy = dy.reshape(*dy.shape[:3], rows, p.written, -1)
        g = p.of_output.T**2 @ dy  # (N, groups, K, tile rows, points, OW)
        window = plain.stride[0] * p.of_weights.shape[1], plain.window[1]
        squares = np.zeros((*plain.w.shape[:3], *window))
        for a, v, j, pixels in self.taps(plain):
            du = np.einsum("ngkapj,ngcapj->gkcp", g[..., j], pixels)
            squares[..., a :: plain.stride[0], v] = du @ p.of_weights**2
        squares = squares[..., : plain.window[0], :]
        terms = plain.x.shape[0] * rows * plain.output[1] + p.roundings
        return np.sqrt(squares.reshape(plain.w_shape)), terms

    def taps(self, plain: Reference) -> Any:
        """Yield row phases, columns of the window, those of outputs, and points of pixels."""
        step, tile_rows = plain.stride[0], -(-plain.output[0] // self.points.written)
        starts = np.arange(tile_rows)[:, None] * self.points.written + np.arange(8)
        for a in range(step):
            h = starts * step + a - plain.margins[0][0]
            inside = (h >= 0) & (h < plain.image[0])
            pixels = plain.x[..., np.clip(h, 0, plain.image[0] - 1), :] ** 2 * inside[..., None]
            points = self.points.of_input**2 @ pixels  # (N, groups, C, tile rows, points, W)
            for v in range(plain.window[1]):
                outputs, columns = plain.met(1, v)
                yield a, v, outputs, points[..., columns]

    def correlated(self, plain: Reference) -> Any:
        """Return sums of squares of a convolution."""
        p, step = self.points, plain.stride[0]
        window = step * p.of_weights.shape[1], plain.window[1]
        rows = np.zeros((*plain.w.shape[:3], *window))
        rows[..., : plain.window[0], :] = plain.w**2
        tile_rows = -(-plain.output[0] // p.written)
        m = np.zeros((len(plain.x), *plain.w.shape[:2], tile_rows, 8, plain.output[1]))
        for a, v, outputs, pixels in self.taps(plain):
            u = rows[..., a::step, v] @ p.of_weights.T**2
            m[..., outputs] += np.einsum("gkcp,ngcapj->ngkapj", u, pixels)
        y = (p.of_output**2 @ m).reshape(*m.shape[:3], -1, plain.output[1])
        return y[..., : plain.output[0], :].reshape(len(y), -1, *plain.output)


# --- Winograd's algorithm along a row -------------------------------------------------------------


class RowSpread:
    """The same where all is summed by way of points along the only row."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.plain, self.direct = Reference(x, w, options), DirectSpread(x, w, options)
        (_, self.step), (_, self.apart) = self.plain.stride, self.plain.dilation
        written, self.taps, self.pieces = cut_of(-(-self.plain.window[1] // self.step))
        self.points = ColumnPoints(8 + 1 - written)
        self.tiles = -(-self.plain.output[1] // (self.apart * written))

    def value(self, b: Any) -> tuple[Any, int]:
        p, plain, written = self.points, self.plain, self.points.written
        y = np.zeros((*plain.x.shape[:1], *plain.w.shape[:2], self.apart, self.tiles, written))
        for taps, v in self.met():
            u = plain.w[..., 0, taps] ** 2 @ p.of_weights.T[: len(taps)] ** 2
            y += np.einsum("gkcp,ngcatp->ngkatp", u, v) @ p.of_output.T**2
        y = np.moveaxis(y, 3, -1).reshape(len(y), -1, 1, self.tiles * written * self.apart)
        bias = 0 if b is None else np.square(b, dtype="f8")[:, None, None]
        terms = plain.w.shape[2] * self.pieces * self.step + p.roundings + 1
        return np.sqrt(y[..., : plain.output[1]] + bias), terms

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        plain = self.plain
        if plain.stride != (1, 1):
            return self.direct.input_gradient(dy)
        turned = np.swapaxes(plain.w, 1, 2)[..., ::-1]
        before = (plain.window[1] - 1) * self.apart - plain.margins[1][0]
        after = plain.image[1] - plain.output[1] + plain.margins[1][0]
        options = {"groups": plain.groups, "dilation": plain.dilation}
        options["padding"] = (0, 0), (before, after)
        return RowSpread(dy, turned.reshape(-1, *turned.shape[2:]), options).value(None)

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        p, plain, written = self.points, self.plain, self.points.written
        behind = self.tiles * written * self.apart - plain.output[1]
        dy = np.pad(plain.split(dy)[..., 0, :] ** 2, [*[(0, 0)] * 3, (0, behind)])
        dy = np.moveaxis(dy.reshape(*dy.shape[:3], self.tiles, written, self.apart), -1, 3)
        g, squares = dy @ p.of_output**2, np.zeros(plain.w.shape)
        for taps, v in self.met():
            du = np.einsum("ngkatp,ngcatp->gkcp", g, v)
            squares[..., 0, taps] = du @ p.of_weights[:, : len(taps)] ** 2
        terms = len(plain.x) * self.apart * self.tiles + p.roundings
        return np.sqrt(squares.reshape(plain.w_shape)), terms

    def met(self) -> Any:
        """Yield taps of the window that go by way of the same points, and these of pixels."""
        plain, p = self.plain, self.points
        for piece, phase in np.ndindex(self.pieces, self.step):
            first = piece * self.taps
            taps = np.arange(first, first + self.taps) * self.step + phase
            tile = np.arange(self.tiles)[:, None] * p.written + np.arange(8) + first
            output = np.arange(self.apart)[:, None, None] + self.apart * tile
            place = output * self.step + phase - plain.margins[1][0]
            inside = (place >= 0) & (place < plain.image[1])
            pixels = plain.x[..., 0, np.clip(place, 0, plain.image[1] - 1)] ** 2 * inside
            yield taps[taps < plain.window[1]], pixels @ p.of_input.T**2


SPREADS = {
    "direct": DirectSpread,
    "implicit": DirectSpread,
    "winograd": WinogradSpread,
    "columns": ColumnSpread,
    "row": RowSpread,
    "depthwise": DirectSpread,
}
