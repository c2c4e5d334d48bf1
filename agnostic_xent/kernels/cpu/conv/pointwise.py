"""Convolution with a window of one pixel, stride 1 and no padding: what is compiled.

It is a product of matrices, (filters, channels) by (channels, pixels) for each image, which are
read where they lie: as each channel is one long row of pixels, there is nothing to pack.
``pointwise_plans.py`` has the sizes.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from ..simd.elementary import borrowed, plain
from ..simd.lines import prefetch_to_read, prefetch_to_write
from ..simd.tiles import correlation_tile, matrix_tile
from ..simd.transposes import transpose
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Write1

TILE = 8
"""Filters of a micro-kernel, for two vectors of pixels."""

ROWS = 6
"""Channels of a micro-kernel of the weight gradient, for a panel of filters."""

DEPTH = 256
"""Pixels that are summed in registers before a partial sum is stored."""

_8x2, _6x4, _6x2 = correlation_tile(TILE, 2), matrix_tile(ROWS, 4), matrix_tile(ROWS, 2)


class Sizes(NamedTuple):
    """Sizes of the images that are read and written; all are integers."""

    images: int
    groups: int
    channels: int
    """Of a group, in the image that is read."""
    filters: int
    """Of a group, in the image that is written."""
    pixels: int


Totals = Annotated[Any, Array("kind", 4, written=True)]


@compiled_in_parts(kind=FLOATS)
def forward(
    x: Read1, w: Read1, bias: Read1, offsets: Integers, y: Write1, t: Sizes, lanes: int,
    relu: bool, parts: int, part: int,
) -> None:  # fmt: skip
    """Write y from x and the weights w (groups, blocks of filters, channels, tile).

    Two vectors of pixels meet all filters before the next two, which are asked for meanwhile. The
    last two of an image overlap those before: the same numbers again.
    """
    x, w, bias, offsets, y = (
        borrowed(x), borrowed(w), borrowed(bias), borrowed(offsets), borrowed(y),
    )  # fmt: skip
    wide, blocks = 2 * lanes, -(-t.filters // TILE)
    panels = -(-t.pixels // wide)
    tasks = t.images * t.groups * panels
    end = tasks * (part + 1) // parts
    for task in range(tasks * part // parts, end):
        x0 = place_of(task, panels, wide, t)
        following = place_of(min(task + 1, end - 1), panels, wide, t)
        image, group = task // panels, task // panels % t.groups
        y0 = image * t.filters * t.pixels + x0 % t.pixels
        for block in range(blocks):
            for c in range(t.channels * block // blocks, t.channels * (block + 1) // blocks):
                for p in range(0, wide, 16):
                    prefetch_to_read(x, following + c * t.pixels + p)
            k = block * TILE
            for f in range(k, min(k + TILE, t.filters)):
                for p in range(0, wide, 16):
                    prefetch_to_write(y, y0 + f * t.pixels + p)
            _8x2(x, offsets, w, bias, y, x0, 0, (group * blocks + block) * t.channels * TILE,
                 t.channels, group * t.filters + k, y0 + k * t.pixels, t.pixels,
                 t.filters - k, wide, relu)  # fmt: skip


@plain
def place_of(task: Any, panels: Any, wide: Any, t: Any) -> Any:
    """Return where in x the pixels of a task begin."""
    image = task // panels * t.channels * t.pixels
    return image + min(task % panels * wide, t.pixels - wide)


@shared
def scratch_of(t: Sizes, filters: int) -> int:
    """Return the numbers of a thread's memory: transposed pixels of so many filters."""
    return min(DEPTH, t.pixels) * filters


@compiled_in_parts(kind=FLOATS)
def weight_gradient(
    x: Read1, dy: Read1, totals: Totals, space: Write1, t: Sizes, panel: int, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Add up totals (sections, groups, channels, filters), channels and filters rounded up.

    Pixels of dy are transposed, so that lanes are filters. The last rows of channels overlap those
    before, and are kept behind them.
    """
    x, dy, totals, space = borrowed(x), borrowed(dy), borrowed(totals), borrowed(space)
    sections, groups, rows, columns = totals.shape
    cuts, tasks, sums = -(-t.pixels // DEPTH), sections * groups, totals.reshape(-1)
    units = t.images * cuts
    s0 = part * scratch_of(t, columns)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        section, group = task // groups, task % groups
        start, end = units * section // sections, units * (section + 1) // sections
        for unit in range(start, end):
            image, first = unit // cuts * groups + group, unit % cuts * DEPTH
            depth = min(DEPTH, t.pixels - first)
            x0, following = image * t.channels * t.pixels + first, min(unit + 1, end - 1)
            next_image = following // cuts * groups + group
            ahead = next_image * t.channels * t.pixels + following % cuts * DEPTH - x0
            transpose(lanes, dy, image * t.filters * t.pixels + first, t.pixels, t.filters, depth,
                      space, s0, columns, columns)  # fmt: skip
            for k in range(0, columns, panel):
                for c in range(0, rows, ROWS):
                    source = x0 + min(c, t.channels - ROWS) * t.pixels
                    for i in range(ROWS if k == 0 else 0):
                        for p in range(0, depth, 16):
                            prefetch_to_read(x, source + ahead + i * t.pixels + p)
                    target = (task * rows + c) * columns + k
                    if panel == 4 * lanes:
                        _6x4(x, space, sums, source, t.pixels, s0 + k, columns,
                             target, columns, depth, unit > start)  # fmt: skip
                    else:
                        _6x2(x, space, sums, source, t.pixels, s0 + k, columns,
                             target, columns, depth, unit > start)  # fmt: skip
