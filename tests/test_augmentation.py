"""Layers that change images at random: a slow plain reference, the same bits on every library."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cli_case import no_report as no_report
from cli_case import one_error_line
from cli_case import toys as toys
from hypothesis import given, settings
from hypothesis import strategies as st
from training_case import each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent import Cutout, RandomCrop, RandomFlip, RandomShift, Sequential, cli, to_numpy
from agnostic_xent.network.layers import Pass
from agnostic_xent.operations.pixels import Way, moved, moved_pixels
from agnostic_xent.training.ranks.shares import ShareOfDraws, share
from agnostic_xent.training.recipe import augmented, changes_of_images

# --- a plain reference: pixel by pixel, from the same draws --------------------------------------


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def below(draw, count):
    return int(np.floor(draw * count))


def plain(layer, x, rng):
    u, (n, channels, *size) = rng.random((len(x), 2)), x.shape
    y = [plain_sample(layer, image, u[i], size) for i, image in enumerate(x)]
    return np.stack(y) if n else np.empty((0, channels, *plain_size(layer, size)), x.dtype)


def plain_size(layer, size):
    return pair(layer.window) if isinstance(layer, RandomCrop) else size


def plain_sample(layer, image, u, size):
    match layer:
        case RandomFlip():
            image = image[:, ::-1] if layer.vertical and u[0] < 0.5 else image
            return image[:, :, ::-1] if layer.horizontal and u[1] < 0.5 else image
        case RandomShift():
            most = pair(layer.pixels)
            away = [below(u[i], 2 * most[i] + 1) - most[i] for i in range(2)]
            return pixels(image, size, away)
        case RandomCrop():
            window = pair(layer.window)
            start = [below(u[i], size[i] - window[i] + 1) for i in range(2)]
            return pixels(image, window, start)
    window = pair(layer.window)
    first = [below(u[i], size[i]) - window[i] // 2 for i in range(2)]
    y = image.copy()
    for i in range(first[0], first[0] + window[0]):
        for j in range(first[1], first[1] + window[1]):
            if 0 <= i < size[0] and 0 <= j < size[1]:
                y[:, i, j] = 0
    return y


def pixels(image, size, start):
    y = np.zeros((len(image), *size), image.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = i + start[0], j + start[1]
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                y[:, i, j] = image[:, row, column]
    return y


sides = st.integers(1, 9)


@st.composite
def layers(draw, size):
    """Draw a layer for images of a size."""
    windows = st.tuples(*(st.integers(1, n) for n in size))
    flags = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    return draw(
        st.one_of(
            st.just(RandomFlip(*flags)),
            st.builds(RandomShift, st.one_of(st.tuples(sides, st.integers(0, 12)), sides)),
            st.builds(RandomCrop, windows),
            st.builds(Cutout, st.one_of(st.tuples(sides, sides), sides)),
        )
    )


@st.composite
def cases(draw):
    """Draw layers, one after the other, and the shape of a batch that they take."""
    size = draw(sides), draw(sides)
    shape, chosen = (draw(st.integers(0, 4)), draw(st.integers(1, 3)), *size), []
    for _ in range(draw(st.integers(1, 4))):
        chosen.append(draw(layers(size)))
        size = plain_size(chosen[-1], size)
    return chosen, shape, draw(st.integers(0, 1000))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_layers_in_a_row_are_the_plain_ones_in_turn(case):
    chosen, shape, seed = case
    x = np.random.default_rng(seed).standard_normal(shape)
    before, expected, rng = x.copy(), x, np.random.default_rng(seed)
    for layer in chosen:
        expected = plain(layer, expected, rng)
    y, pullback = Sequential(*chosen).vjp({}, x, rng=seed)
    np.testing.assert_array_equal(y, expected)
    # linear in x: the pullback is the transpose
    dy = np.random.default_rng(seed + 1).standard_normal(y.shape)
    dx, grads = pullback(dy)
    assert grads == {}
    assert dx.shape == x.shape
    assert np.sum(dy * y) == pytest.approx(np.sum(dx * x), abs=1e-9)
    np.testing.assert_array_equal(x, before)


def test_the_same_bits_on_every_row(row):
    """Also of numbers that are not finite."""
    layer = Sequential(RandomFlip(vertical=True), RandomShift(2), RandomCrop((5, 4)), Cutout(2))
    x = np.random.default_rng(0).standard_normal((6, 2, 7, 6))
    x[0, 0, 0], x[0, 0, 1] = np.inf, np.nan
    for dtype in row.dtypes:
        expected, pull = layer.vjp({}, x.astype(dtype), rng=3)

        def both(x, dy):
            y, pullback = layer.vjp({}, x, rng=3)
            return y, pullback(dy)[0]

        found = row.call(both, row.array(x, dtype), row.array(expected, dtype))
        for z, wanted in zip(found, (expected, pull(expected)[0]), strict=True):
            row.check(z, dtype)
            np.testing.assert_array_equal(to_numpy(z), wanted)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (0, 1, 2, 2), (1, 1, 1, 1), (40, 3, 32, 32)])
def test_the_kernel_moves_what_the_definition_moves(shape, dtype):
    """Also of images in another order of memory, and of outputs that lie outside."""
    rng, before = np.random.default_rng(1), shape[2:]
    x = rng.standard_normal(shape).astype(dtype)
    for source in (x, np.asfortranarray(x), x[:, :, ::-1, ::-1]):
        for size in ((4, 6), (1, 3), before):
            start = rng.integers(-3, 9, (shape[0], 2))
            way = Way.within(start, rng.choice([-1, 1], (shape[0], 2)), before, size)
            found = moved(source, way)
            with ax.kernels("portable"):
                expected = moved(source, way)
            assert found.dtype == expected.dtype == x.dtype.newbyteorder("=")
            assert found.shape == (*shape[:2], *size)
            np.testing.assert_array_equal(found, expected)
            if dtype in ("f4", "f8"):
                assert "Numba" in moved_pixels._choose([source, *way[:4]], {"size": size})[0].name


def test_ranks_draw_what_one_draws():
    class Rank:
        size = 3

        def __init__(self, rank):
            self.rank = rank

    layer = Sequential(RandomFlip(), RandomShift(2), Cutout(2), RandomCrop(3))
    x = np.random.default_rng(0).standard_normal((10, 1, 6, 6))
    whole, _ = layer.forward({}, x, Pass(rng=np.random.default_rng(4)))
    found = []
    for rank in map(Rank, range(3)):
        draws = ShareOfDraws(np.random.default_rng(4), lambda: 10, rank)
        found.append(layer.forward({}, x[share(10, rank)], Pass(rng=draws))[0])
    np.testing.assert_array_equal(np.concatenate(found), whole)


# --- how often -----------------------------------------------------------------------------------

COUNT = 4000
FAR = 5 / np.sqrt(COUNT)
"""Ten standard deviations of a share."""


def test_half_are_mirrored_and_all_shifts_are_as_likely():
    x = np.zeros((COUNT, 1, 7, 7))
    x[:, 0, 3, 2] = 1
    y, _ = RandomFlip().vjp({}, x, rng=0)
    assert abs(y[:, 0, 3, 4].mean() - 0.5) < FAR
    assert abs(y[:, 0, 3, 2].mean() - 0.5) < FAR
    y, _ = RandomShift((1, 2)).vjp({}, x, rng=0)
    np.testing.assert_allclose(y[:, 0, 2:5, :5].mean(axis=0), 1 / 15, atol=FAR)
    y, _ = Cutout(1).vjp({}, np.ones((COUNT, 1, 2, 3)), rng=0)
    np.testing.assert_allclose(1 - y.mean(axis=(0, 1)), 1 / 6, atol=FAR)


def test_inference_is_that_of_the_image_or_its_middle():
    x = np.arange(60.0).reshape(1, 2, 5, 6)
    for layer in (RandomFlip(), RandomShift(9), Cutout(3)):
        assert layer({}, x) is x
    np.testing.assert_array_equal(RandomCrop((2, 3))({}, x), x[:, :, 1:3, 1:4])
    both = Sequential(RandomFlip(), RandomCrop(4), RandomShift(1), RandomCrop(2))
    np.testing.assert_array_equal(both({}, x), x[:, :, 1:3, 2:4])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RandomFlip(False), r"horizontal or vertical must be True"),
        (lambda: RandomFlip("left"), r"horizontal must be one of True, False; got 'left'"),
        (lambda: RandomShift(-1), r"pixels must be an integer >= 0 or a pair"),
        (lambda: RandomShift(1.5), r"pixels must be an integer >= 0 .* got 1.5"),
        (lambda: RandomCrop(0), r"window must be an integer >= 1"),
        (lambda: Cutout((1, 2, 3)), r"window must be an integer >= 1 .* got \(1, 2, 3\)"),
        (lambda: RandomCrop(7).init(0, (1, 8, 6)), r"window must fit into images of \(8, 6\)"),
        (lambda: RandomFlip().init(0, (8, 6)), r"x must have 4 dimensions \(N, C, H, W\), got 3"),
        (lambda: Cutout(1).init(0, (8,)), r"x must have 4 dimensions"),
    ],
)
def test_refusals(make, error):
    with pytest.raises(ValueError, match=error):
        make()


# --- within models -------------------------------------------------------------------------------


def test_a_model_keeps_its_names_and_what_it_does_in_inference():
    model = ax.convnet(3, shape=(1, 8, 8))
    params, _ = model.init(0, (1, 8, 8))
    x = np.random.default_rng(0).standard_normal((600, 1, 8, 8)).astype("f4")
    for layers in (changes_of_images((1, 8, 8)), [Cutout(2)], []):
        changed = augmented(model, layers)
        assert changed.init(0, (1, 8, 8))[0].keys() == params.keys()
        np.testing.assert_array_equal(ax.predict(changed, params, x), ax.predict(model, params, x))
    other = augmented(ax.Dense(2), [ax.Dropout()])
    assert other.init(0, (4,))[0].keys() == {"weight", "bias"}


def test_zeros_come_in_behind_the_standardization():
    x = np.full((5, 1, 4, 4), 7.0)
    model = Sequential(ax.Standardize(), ax.Flatten())
    y, _ = augmented(model, [RandomShift(3)]).vjp(ax.standardized(model, {
        "0.mean": np.zeros((1, 1, 1)), "0.std": np.ones((1, 1, 1))}, x), x, rng=0)  # fmt: skip
    assert not y.any()  # 7 is the mean


@each_home
def test_fit_goes_the_same_way_on_every_library(home):
    x, y = images()
    model = Sequential(RandomFlip(), RandomShift(1), Cutout(2), ax.Flatten(), ax.Dense(3))
    expected, _ = train((x, y), model=model)
    params = {k: home.array(w) for k, w in start(model).items()}
    found, _ = train((home.array(x), home.array(y)), model=model, params=params)
    for name, w in expected.items():
        np.testing.assert_allclose(to_numpy(found[name]), w, rtol=1e-4, atol=1e-5)
    plain, _ = train((x, y), model=Sequential(*model.layers[3:]))
    assert not np.allclose(plain["1.weight"], expected["4.weight"])


def test_exported_and_compiled_models_have_no_trace_of_them(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = Sequential(RandomFlip(), RandomCrop((5, 6)), RandomShift(1), Cutout(2),
                       ax.Conv2d(2, 3), ax.ReLU(), ax.Flatten(), ax.Dense(3))  # fmt: skip
    params, _ = model.init(0, (2, 8, 9))
    x = np.random.default_rng(0).standard_normal((4, 2, 8, 9)).astype("f4")
    expected = Sequential(*model.layers[4:])(
        {f"{int(k[0]) - 4}{k[1:]}": w for k, w in params.items()}, x[:, :, 1:6, 1:7]
    )
    compiled = ax.compile_predictor(model, params, (2, 8, 9))(x)
    np.testing.assert_allclose(compiled, expected, rtol=1e-5, atol=1e-6)
    ax.export_onnx(model, params, tmp_path / "m.onnx", (2, 8, 9))
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=1e-5, atol=1e-6)


# --- the classifier and the command line ---------------------------------------------------------


def shifted_bars(samples=60):
    rng = np.random.default_rng(1)
    y = np.arange(samples) % 2
    x = 0.1 * rng.standard_normal((samples, 1, 8, 8))
    x[y == 0, :, 3:5] += 1
    x[y == 1, :, :, 3:5] += 1
    return x.astype("f4"), y


@pytest.mark.parametrize("augment", ["images", [RandomShift(2), Cutout(3)], (), None])
def test_the_classifier_takes_layers(augment):
    pytest.importorskip("sklearn")
    x, y = shifted_bars()
    options = {"epochs": 8, "batch_size": 16, "random_state": 0}
    found = ax.CNNClassifier(augment=augment, **options).fit(x, y)
    plain = ax.CNNClassifier(**options).fit(x, y)
    assert found.params_.keys() == plain.params_.keys()
    assert found.score(x, y) == 1
    if augment:
        assert found.loss_curve_ != plain.loss_curve_
    else:
        same(found.params_, plain.params_)


@pytest.mark.parametrize(
    ("augment", "error"),
    [
        ("photos", 'augment must be None, "images", "sensors" or a list of layers'),
        (RandomFlip(), 'augment must be None, "images", "sensors" or a list of layers'),
        ([RandomCrop(4)], r"keep the shape of images, \(1, 8, 8\).*which make \(1, 4, 4\)"),
        ([ax.BatchNorm2d()], "layers without parameters"),
        (["flip"], "layers must be a layer such as"),
    ],
)
def test_the_classifier_refuses(augment, error):
    pytest.importorskip("sklearn")
    with pytest.raises((TypeError, ValueError), match=error):
        ax.CNNClassifier(augment=augment, epochs=1).fit(*shifted_bars())


@pytest.mark.usefixtures("toys", "no_report")
def test_the_command_line_augments_images_alone(tmp_path, capsys):
    runs = [["--augment"], ["--augment"], []]
    losses = []
    for i, options in enumerate(runs):
        folder = tmp_path / str(i)
        assert cli.main(["train", "--epochs", "1", "--out", str(folder), *options]) == 0
        losses.append(cli.saved.read(folder)[2][0].loss)
        assert cli.saved.read(folder)[0].augment == bool(options)
    assert losses[0] == losses[1] != losses[2]
    capsys.readouterr()
    assert cli.main(["train", "logistic", "--augment"]) == 2
    error = "argument --augment: is for cnn and signals, not for logistic"
    assert one_error_line(capsys) == error


def test_no_warning_of_chance_where_there_is_something_to_learn():
    pytest.importorskip("sklearn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.CNNClassifier(augment="images", epochs=8, batch_size=16, random_state=0).fit(
            *shifted_bars()
        )
