"""What training decided about numbers and pictures holds for all later ones, or is an error."""

from __future__ import annotations

import csv
import io
import json
import zlib

import numpy as np
import pytest
from cli_case import keep_model, one_error_line
from cli_case import no_report as no_report

from agnostic_xent import cli
from agnostic_xent.datasets.scale import Scale

BYTES = Scale(255, 0, 255, whole=True)
SHARES = Scale(1, 0, 1, whole=False)


def table(*arguments, capsys):
    """Return the probabilities that the command prints."""
    assert cli.main([*map(str, arguments)]) == 0
    _, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    return np.asarray([row[2:] for row in rows], float)


def written(tmp_path, x, kind):
    """Write an array as a file of some kind."""
    file = tmp_path / f"x-{kind}.{kind if kind in ('csv', 'npz') else 'npy'}"
    if kind == "csv":
        np.savetxt(file, x, delimiter=",", fmt="%d")
    elif kind == "npz":
        np.savez(file, x=x.astype(np.int16))
    else:
        np.save(file, x.astype(kind))
    return file


# --- numbers -------------------------------------------------------------------------------------

DTYPES = ["uint8", "int16", "int64", ">i4", "uint64", "float16", "float32", "float64"]


def levels(shape, top=255):
    x = np.random.default_rng(0).integers(0, top + 1, shape)
    x.flat[0] = top
    return x


@pytest.mark.parametrize("kind", [*DTYPES, "csv", "npz"])
def test_rows_of_bytes_give_the_same_whatever_holds_them(tmp_path, capsys, kind):
    x = levels((9, 5))
    model = keep_model(tmp_path / "run", "logistic", (5,), scale=BYTES)
    as_trained = keep_model(tmp_path / "unscaled", "logistic", (5,), scale=SHARES)
    np.save(tmp_path / "shares.npy", (x / np.float32(255)).astype(np.float32))
    expected = table("predict", as_trained, tmp_path / "shares.npy", capsys=capsys)
    found = table("predict", model, written(tmp_path, x, kind), capsys=capsys)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        *((dtype, 255) for dtype in DTYPES),
        ("uint16", 65535),
        ("f8", 65535),
        ("u2", 4095),
        ("i4", 1023),
    ],
)
def test_images_of_levels_are_divided_in_training_whatever_their_dtype(tmp_path, dtype, top):
    x, y = levels((8, 1, 8, 8), top).astype(dtype), np.arange(8) % 2
    np.savez(tmp_path / "mine.npz", train_x=x, train_y=y, test_x=x.astype(float), test_y=y)
    data, scale = cli.data.load("cnn", str(tmp_path / "mine.npz"))
    assert scale == Scale(top, x.min(), top, whole=True)
    assert np.array_equal(data.train_x, x.astype(np.float32) / np.float32(top))
    assert np.array_equal(data.train_x, data.test_x)


@pytest.mark.parametrize(
    ("x", "divisor"),
    [
        (levels((6, 3)).astype("uint8"), 255),
        (levels((6, 3)), 1),  # of rows the dtype alone says that they are of pixels
        (levels((6, 3), 1).astype("uint8"), 1),
        (levels((6, 1, 8, 8), 16).astype("uint8"), 255),
        (levels((6, 1, 8, 8), 16).astype("float64"), 1),
        (levels((6, 1, 8, 8), 1).astype("uint8"), 1),
        (levels((6, 1, 8, 8), 1).astype("bool"), 1),
        (levels((6, 1, 8, 8)) / 2 - 64, 1),
        (levels((6, 1, 8, 8)) * 0.9, 255),
        (levels((6, 1, 8, 8), 300), 1023),
        (levels((6, 3), 70_000), 1),
    ],
)
def test_what_numbers_are_divided_by(x, divisor):
    assert Scale.of(x).divisor == divisor
    assert np.array_equal(Scale.of(x).numbers("x", x), x.astype("f4") / np.float32(divisor))


@pytest.mark.parametrize("x", [levels((6, 1, 8, 8), 70_000), levels((6, 1, 8, 8)) - 128])
def test_images_of_numbers_that_would_train_to_chance_are_an_error(tmp_path, capsys, x):
    y = np.arange(6) % 2
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    assert cli.main(["train", "--data", str(tmp_path / "d.npz")]) == 2
    line = one_error_line(capsys)
    assert f"train_x holds numbers from {x.min()} to {x.max()}: bring images to" in line


def test_the_scale_is_kept_with_the_model(no_report, tmp_path, capsys):
    x, y = levels((20, 8, 8)), np.arange(20) % 2
    out = tmp_path / "run"
    np.savez(tmp_path / "a.npz", train_x=x.astype("u1"), train_y=y, test_x=x.astype("u1"), test_y=y)
    np.savez(tmp_path / "b.npz", X_test=x.astype("i8"), y_test=y.astype(float)[:, None])
    command = ["train", "--data", str(tmp_path / "a.npz"), "--epochs", "1", "--out", str(out)]
    assert cli.main(command) == 0
    kept = json.loads((out / "run.json").read_text())["scale"]
    assert kept == {"divisor": 255, "least": 0, "greatest": 255, "whole": True}
    capsys.readouterr()
    for data in ([], ["--data", str(tmp_path / "b.npz")]):
        assert cli.main(["evaluate", str(out), *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]


IMAGES, ROWS = (2, 1, 8, 8), (2, 5)
OTHER_SCALES = {
    "bytes for shares": (SHARES, levels(IMAGES)),
    "bytes for rows of shares": (SHARES, levels(ROWS)),
    "16 bits for bytes": (BYTES, levels(IMAGES, 65535)),
    "shares for bytes": (BYTES, levels(IMAGES) / 255),
    "shares for rows of bytes": (BYTES, levels(ROWS) / 255),
    "shares for levels": (Scale(1, 0, 16, whole=True), levels(IMAGES) / 255),
    "levels for shares": (SHARES, levels(IMAGES, 16)),
    "standardised for bytes": (BYTES, levels(IMAGES) / 50 - 2),
    "standardised for rows of bytes": (BYTES, levels(ROWS) / 50 - 2),
    "centred for shares": (SHARES, levels(IMAGES) / 127.5 - 1),
    "10 bits for 8": (BYTES, levels(IMAGES, 1023)),
    "10 bits for rows of 8": (BYTES, levels(ROWS, 1023)),
    "8 bits for 16": (Scale(65535, 0, 65535, whole=True), levels(IMAGES)),
    "wrapped bytes": (BYTES, levels(IMAGES).astype("uint8").astype("int8")),
}


@pytest.mark.parametrize("name", OTHER_SCALES)
def test_numbers_on_another_scale_are_an_error(tmp_path, capsys, name):
    scale, x = OTHER_SCALES[name]
    model = "cnn" if x.ndim == 4 else "logistic"
    folder, file = keep_model(tmp_path / "run", model, x.shape[1:], scale=scale), tmp_path / "x.npy"
    np.save(file, x)
    np.savez(tmp_path / "t.npz", test_x=x, test_y=np.array(["dark", "light"]))
    for command in (["predict", folder, file], ["evaluate", folder, "--data", tmp_path / "t.npz"]):
        assert cli.main([*map(str, command)]) == 2
        line = one_error_line(capsys)
        assert f"holds numbers from {x.min():g} to {x.max():g}, but the model was" in line
        assert line.endswith(f"{scale.least:g} to {scale.greatest:g}: bring them to that scale")


@pytest.mark.parametrize(
    ("scale", "x"),
    [
        (SHARES, levels(IMAGES) / 100),  # brighter
        (Scale(255, 0, 16, whole=True), levels(IMAGES)),
        (SHARES, levels(IMAGES) / 255 - 0.05),  # resized
        (SHARES, np.zeros(IMAGES)),
        (BYTES, levels(IMAGES, 1)),  # black but for noise
        (BYTES, np.zeros(IMAGES)),
        (Scale(1, -3, 3, whole=False), levels(ROWS)),  # an outlier
        (Scale(1, 0, 90, whole=True), levels(ROWS) - 30),
    ],
)
def test_numbers_that_may_be_of_the_same_scale_are_taken(scale, x):
    assert np.array_equal(scale.numbers("x", x), x.astype("f4") / np.float32(scale.divisor))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_are_an_error(tmp_path, capsys, wrong):
    x = np.ones((20, 3))
    x[7, 1] = wrong
    y = np.arange(20) % 2
    model = keep_model(tmp_path / "run", "logistic", (3,), scale=SHARES)
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    assert cli.main(["predict", str(model), str(tmp_path / "x.csv")]) == 2
    assert f"it must be of finite numbers, but sample 7 has {wrong}" in one_error_line(capsys)
    for bad in ("train_x", "test_x"):
        arrays = {"train_x": np.ones_like(x), "test_x": np.ones_like(x)} | {bad: x}
        np.savez(tmp_path / "d.npz", train_y=y, test_y=y, **arrays)
        assert cli.main(["train", "logistic", "--data", str(tmp_path / "d.npz")]) == 2
        assert f"{bad} must be of finite numbers, but sample 7" in one_error_line(capsys)
    for whole in ("x", "train_x"):  # of which a part is held out
        np.savez(tmp_path / "d.npz", **{whole: x, whole.replace("x", "y"): y})
        assert cli.main(["train", "logistic", "--data", str(tmp_path / "d.npz")]) == 2
        assert f" {whole} must be of finite numbers, but sample 7" in one_error_line(capsys)


@pytest.mark.parametrize("scale", [SHARES, Scale(65535, 0, 65535, whole=True)])
def test_uint8_images_are_pictures_for_a_model_of_another_white(tmp_path, capsys, scale):
    x = levels(IMAGES).astype("uint8")
    model = keep_model(tmp_path / "run", scale=scale)
    np.save(tmp_path / "bytes.npy", x)
    np.save(tmp_path / "same.npy", x / np.float32(255) if scale == SHARES else x * np.uint16(257))
    first, second = (table("predict", model, f, capsys=capsys) for f in tmp_path.glob("*.npy"))
    assert np.array_equal(first, second)


def test_models_without_a_scale_are_read_as_before(tmp_path, capsys):
    x = levels(IMAGES)
    model = keep_model(tmp_path / "run")
    old = json.loads((model / "run.json").read_text())
    del old["scale"]
    (model / "run.json").write_text(json.dumps(old))
    results = []
    for array in (x.astype("uint8"), (x / 255).astype("float32"), x.astype("float32")):
        np.save(tmp_path / "x.npy", array)
        results.append(table("predict", model, tmp_path / "x.npy", capsys=capsys))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(
    "scale",
    [{}, {"divisor": 0, "least": 0, "greatest": 1, "whole": True}, [], 255, {"divisor": 255}],
)
def test_a_damaged_scale_is_an_error(tmp_path, capsys, scale):
    model = keep_model(tmp_path / "run")
    values = json.loads((model / "run.json").read_text()) | {"scale": scale}
    (model / "run.json").write_text(json.dumps(values))
    assert cli.main(["predict", str(model), "x.npy"]) == 2
    assert one_error_line(capsys).startswith(f"argument DIR: {model / 'run.json'}: ")


# --- pictures ------------------------------------------------------------------------------------

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]


def picture(x, mode):
    """Return a picture of grey levels (H, W) in a mode of Pillow."""
    image = pytest.importorskip("PIL.Image")
    if mode == "I;16":
        return image.fromarray(x.astype(np.uint16) * 257)
    return image.fromarray(x.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [BYTES, SHARES, Scale(65535, 0, 65535, whole=True)])
def test_pictures_of_every_mode_are_what_their_levels_say(tmp_path, capsys, mode, channels, scale):
    x = levels((3, 8, 8)) if mode != "1" else 255 * levels((3, 8, 8), 1)
    model = keep_model(tmp_path / "run", shape=(channels, 8, 8), scale=scale)
    (tmp_path / "pictures").mkdir()
    for i, level in enumerate(x):
        picture(level, mode).save(tmp_path / "pictures" / f"{i}.png")
    colours = np.repeat(x[:, None], channels, axis=1)
    np.save(tmp_path / "x.npy", colours * (1 / 255 if scale == SHARES else scale.divisor // 255))
    expected = table("predict", model, tmp_path / "x.npy", capsys=capsys)
    assert np.array_equal(table("predict", model, tmp_path / "pictures", capsys=capsys), expected)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_model_of_many_bits_takes_the_levels_of_pictures_as_they_are(tmp_path, capsys, bits):
    """A camera of 12 bits writes files of 16 whose levels end at 4095."""
    white = 2**bits - 1
    x = levels((3, 8, 8), white).astype(np.uint16)
    model = keep_model(tmp_path / "run", scale=Scale(white, 0, white, whole=True))
    image = pytest.importorskip("PIL.Image")
    for i, level in enumerate(x):
        folder = saved_picture(tmp_path, image.fromarray(level), f"{i}.png")
    np.save(tmp_path / "x.npy", x)
    expected = table("predict", model, tmp_path / "x.npy", capsys=capsys)
    assert np.array_equal(table("predict", model, folder, capsys=capsys), expected)
    if bits < 16:
        saved_picture(tmp_path, image.fromarray(level * np.uint16(4)), "brighter.png")
        assert cli.main(["predict", str(model), folder]) == 2
        line = one_error_line(capsys)
        assert line.endswith(f"pictures are brighter than the model's white, {white}")


def saved_picture(tmp_path, image, name="a.png", **options):
    (tmp_path / "pictures").mkdir(exist_ok=True)
    image.save(tmp_path / "pictures" / name, **options)
    return str(tmp_path / "pictures")


def refused(tmp_path, capsys, shape=(1, 8, 8), scale=BYTES):
    model = keep_model(tmp_path / "run", shape=shape, scale=scale)
    assert cli.main(["predict", str(model), str(tmp_path / "pictures")]) == 2
    return one_error_line(capsys)


def test_pictures_of_other_modes_are_an_error(tmp_path, capsys):
    saved_picture(tmp_path, picture(levels((8, 8)), "L").convert("CMYK"), "a.jpg")
    assert "a.jpg: its pixels are of mode CMYK" in refused(tmp_path, capsys)


def test_transparent_pictures_are_an_error(tmp_path, capsys):
    image = picture(levels((8, 8)), "RGBA")
    image.putpixel((3, 3), (0, 0, 0, 254))
    saved_picture(tmp_path, image)
    assert "a.png: it is transparent in places" in refused(tmp_path, capsys)


def test_a_transparent_colour_counts_where_it_is_used(tmp_path, capsys):
    image = picture(levels((8, 8), 100), "P")
    saved_picture(tmp_path, image, "a.png", transparency=255)  # no pixel has it
    model = keep_model(tmp_path / "run", scale=BYTES)
    assert len(table("predict", model, tmp_path / "pictures", capsys=capsys)) == 1
    saved_picture(tmp_path, image, "a.png", transparency=int(np.asarray(image)[2, 2]))
    assert cli.main(["predict", str(model), str(tmp_path / "pictures")]) == 2
    assert "a.png: it is transparent in places" in one_error_line(capsys)


def test_pictures_are_turned_as_viewers_turn_them(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    upright = levels((12, 8))
    exif = image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    folder = saved_picture(tmp_path, picture(np.rot90(upright), "L"), exif=exif)
    np.save(tmp_path / "x.npy", upright[None])
    model = keep_model(tmp_path / "run", shape=(1, 12, 8), scale=BYTES)
    expected = table("predict", model, tmp_path / "x.npy", capsys=capsys)
    assert np.array_equal(table("predict", model, folder, capsys=capsys), expected)


def test_pictures_of_another_size_are_not_even_unpacked(tmp_path, capsys):
    """A header that claims 9,000 x 9,000 pixels, before data that is none."""
    saved_picture(tmp_path, picture(levels((8, 8)), "L"))
    file = tmp_path / "pictures" / "a.png"
    content = bytearray(file.read_bytes())
    content[16:24] = (9_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    file.write_bytes(content)
    assert "a.png: it has 9000 x 9000 pixels, but the model" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("scale", "part"),
    [
        (Scale(1, -2, 3, whole=False), "trained on numbers from -2 to 3"),
        (Scale(1, 0, 16, whole=True), "trained on numbers from 0 to 16"),
    ],
)
def test_pictures_for_a_model_of_other_numbers_are_an_error(tmp_path, capsys, scale, part):
    saved_picture(tmp_path, picture(levels((8, 8)), "L"))
    line = refused(tmp_path, capsys, scale=scale)
    assert "pictures are between 0 and 1" in line
    assert part in line


def test_pictures_for_a_model_of_other_channels_are_an_error(tmp_path, capsys):
    saved_picture(tmp_path, picture(levels((8, 8)), "L"))
    assert "takes no pictures of 1 or 3 channels" in refused(tmp_path, capsys, shape=(4, 8, 8))


def test_a_folder_of_folders_without_pictures_is_an_error(tmp_path, capsys):
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    assert ": it has no .avif, .bmp, .gif, .jpeg" in refused(tmp_path, capsys)


def test_channels_that_come_last_are_an_error(tmp_path, capsys):
    x, y = levels((20, 8, 8, 3)), np.arange(20) % 2
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    np.save(tmp_path / "x.npy", x)
    model = keep_model(tmp_path / "run", shape=(3, 8, 8), scale=BYTES)
    for command in (
        ["train", "--data", tmp_path / "d.npz"],
        ["evaluate", model, "--data", tmp_path / "d.npz"],
        ["predict", model, tmp_path / "x.npy"],
    ):
        assert cli.main([*map(str, command)]) == 2
        line = one_error_line(capsys)
        assert "must have shape (N, C, H, W), but (20, 8, 8, 3) looks like images" in line
        assert line.endswith("numpy.moveaxis(x, -1, 1) puts it first")
