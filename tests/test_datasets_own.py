"""Pictures and tables of one's own, as Python loads them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from agnostic_xent.datasets import load_images, load_table, pictures
from agnostic_xent.datasets.columns import MISSING, Columns

# --- pictures ------------------------------------------------------------------------------------


@pytest.fixture
def image():
    return pytest.importorskip("PIL.Image")


def written(folder, pictures_by_class, suffix="png", **options):
    for name, images in pictures_by_class.items():
        (folder / name).mkdir(parents=True)
        for i, picture in enumerate(images):
            picture.save(folder / name / f"{i}.{suffix}", **options)
    return folder


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pictures_of_one_size_are_as_they_are(tmp_path, image):
    x = noise((2, 5, 12, 9, 3))
    files = {n: [image.fromarray(a) for a in x[i]] for i, n in enumerate("ab")}
    data = load_images(written(tmp_path / "p", files))
    assert (data.name, data.classes, data.train_x.dtype) == ("p", ("a", "b"), np.float32)
    assert data.train_x.shape == (8, 3, 12, 9)
    given = {a.tobytes(): i for i, part in enumerate(x) for a in part}
    for pixels, label in (
        *zip(data.train_x, data.train_y, strict=True),
        *zip(data.test_x, data.test_y, strict=True),
    ):
        levels = np.round(pixels.transpose(1, 2, 0) * 255).astype(np.uint8)
        assert given.pop(levels.tobytes()) == label
    assert not given
    assert sorted(data.test_y) == [0, 1]


def test_the_middle_of_a_larger_picture_is_kept(tmp_path, image):
    """Its margins are lost, not squeezed: a disc stays a disc."""
    x = np.zeros((60, 100), np.uint8)
    x[:, :15] = x[:, 85:] = 255  # a resampled pixel sees some beside it
    files = {n: [image.fromarray(x)] * 2 for n in "ab"}
    data = load_images(written(tmp_path / "p", files), size=30)
    assert data.train_x.shape == (2, 1, 30, 30)
    assert data.train_x.max() == 0
    tall = load_images(tmp_path / "p", size=(20, 40))
    assert tall.train_x.shape == (2, 1, 20, 40)
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        load_images(tmp_path / "p", size=0)


@pytest.mark.parametrize("sides", [(20, 30, 40), (100, 200, 300)])
def test_the_size_is_the_median_side_or_the_largest(tmp_path, image, sides):
    files = {n: [image.new("L", (side + 7, side)) for side in sides] for n in "ab"}
    found = pictures.pictures_in(written(tmp_path / "p", files))
    side = min(sides[1], 64)
    assert pictures.common_shape(found, 64) == (1, side, side)


def test_pictures_are_turned_as_their_camera_says(tmp_path, image):
    x = noise((6, 8))
    exif = image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    files = {n: [image.fromarray(x)] * 2 for n in "ab"}
    data = load_images(written(tmp_path / "p", files, exif=exif))
    assert np.array_equal(np.round(data.train_x[0, 0] * 255), np.rot90(x, -1))


@pytest.mark.parametrize("resized", [False, True])
def test_sixteen_bits(tmp_path, image, resized):
    x = np.full((12, 12), 40_000, np.uint16)
    files = {n: [image.fromarray(x)] * 2 for n in "ab"}
    data = load_images(written(tmp_path / "p", files), size=6 if resized else None)
    assert data.train_x.shape[1] == 1
    np.testing.assert_allclose(data.train_x, 40_000 / 65535, rtol=1e-6)


def test_grey_and_colours_together_are_in_colour(tmp_path, image):
    files = {
        "a": [image.new("L", (4, 4), 51)] * 2,
        "b": [image.new("RGB", (4, 4), (255, 0, 51))] * 2,
    }
    data = load_images(written(tmp_path / "p", files))
    assert data.train_x.shape == (2, 3, 4, 4)
    by_class = data.train_x[np.argsort(data.train_y)][:, :, 0, 0]
    np.testing.assert_allclose(by_class, [[0.2] * 3, [1, 0, 0.2]], rtol=1e-6)


def test_many_pixels_lie_in_a_file(tmp_path, image, monkeypatch):
    x = noise((2, 4, 8, 8))
    files = {n: [image.fromarray(a) for a in x[i]] for i, n in enumerate("ab")}
    written(tmp_path / "p", files)
    expected = load_images(tmp_path / "p")
    monkeypatch.setattr(pictures, "IN_MEMORY", 1000)
    found = load_images(tmp_path / "p")
    assert isinstance(found.train_x, np.memmap)
    assert np.array_equal(found.train_x, expected.train_x)


def test_the_same_seed_holds_out_the_same(tmp_path, image):
    files = {n: [image.new("L", (4, 4), 9 * i + j) for i in range(9)] for j, n in enumerate("ab")}
    written(tmp_path / "p", files)
    found = [load_images(tmp_path / "p", test_fraction=1 / 3, rng=seed) for seed in (1, 1, 2)]
    assert [len(data.test_x) for data in found] == [6] * 3
    assert np.array_equal(found[0].train_x, found[1].train_x)
    assert not np.array_equal(found[0].train_x, found[2].train_x)


def test_what_is_missing_is_named(tmp_path, image, monkeypatch):
    written(tmp_path / "p", {n: [image.new("L", (4, 4))] * 2 for n in "ab"})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="reading pictures needs pillow"):
        load_images(tmp_path / "p")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="reading tables needs pandas"):
        load_table(tmp_path / "t.csv", label="y")


# --- tables --------------------------------------------------------------------------------------


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


def people(pandas, count=200, seed=0):
    rng = np.random.default_rng(seed)
    frame = pandas.DataFrame(
        {
            "age": rng.integers(1, 90, count).astype(float),
            "fare": rng.lognormal(3, 1, count),
            "port": rng.choice(["Cork", "Kiel", "Oslo"], count),
            "member": rng.random(count) < 0.5,
            "name": [f"person {i}" for i in range(count)],
            "left": rng.choice(["stayed", "went"], count),
        }
    )
    frame.loc[::10, "age"] = np.nan
    frame.loc[3::40, "port"] = None
    return frame


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_columns_are_as_scikit_learn_makes_them(tmp_path, pandas, suffix):
    """Whatever the file; of the training part alone."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    frame, file = people(pandas), tmp_path / f"people.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="\t" if suffix == "tsv" else ",")
    data = load_table(file, label="left")
    assert (data.classes, data.train_x.dtype) == (("stayed", "went"), np.float32)
    assert data.columns.left_out == {"name": "it has 160 different texts"}
    # which rows are in which part: those whose fares are there
    fares = data.train_x[:, 1] * data.columns.numbers["fare"][1] + data.columns.numbers["fare"][0]
    rows = np.abs(frame.fare.to_numpy()[None] - fares[:, None]).argmin(axis=1)
    train = frame.iloc[rows]
    numbers = train[["age", "fare", "member"]].astype(float)
    numbers = numbers.fillna(numbers.mean())
    expected = preprocessing.StandardScaler().fit_transform(numbers.to_numpy())
    age = train.age.dropna()  # of the values that are there
    expected[:, 0] = (numbers.age - age.mean()) / age.std(ddof=0)
    ports = train.port.fillna(MISSING).astype(str).to_numpy()[:, None]
    one_hot = preprocessing.OneHotEncoder(sparse_output=False).fit_transform(ports)
    np.testing.assert_allclose(
        data.train_x, np.concatenate([expected, one_hot], axis=1), rtol=1e-5, atol=1e-5
    )
    assert np.array_equal(data.train_y, train.left == "went")
    assert data.columns.missing == {
        "age": int(train.age.isna().sum()),
        "port": int(train.port.isna().sum()),
    }


def test_rows_of_another_table(pandas, tmp_path):
    frame = people(pandas)
    frame.to_csv(tmp_path / "t.csv", index=False)
    columns = load_table(tmp_path / "t.csv", label="left").columns
    new = pandas.DataFrame(
        {"port": ["Kiel", "Rome", None], "fare": 1, "age": [np.nan, 5, 6], "member": True}
    )
    x = columns.rows(new)
    assert x[0, 0] == 0  # the mean
    assert [*map(float, x[1, 3:])] == [0, 0, 0, 0]  # a port that was not there
    assert [*map(float, x[2, 3:])] == [1, 0, 0, 0]  # "(missing)" is the first of them
    with pytest.raises(ValueError, match="column 'age' must be of numbers, got 'old'"):
        columns.rows(new.assign(age="old"))
    with pytest.raises(ValueError, match="it has no column 'member'"):
        columns.rows(new.drop(columns="member"))


def test_labels_and_numbers_that_cannot_be_are_named(pandas, tmp_path):
    frame, file = people(pandas), tmp_path / "t.csv"

    def refused(changed, text, label="left"):
        changed.to_csv(file, index=False)
        with pytest.raises(ValueError, match=text) as error:
            load_table(file, label=label)
        assert str(error.value).startswith(str(file))

    gone = frame.copy()
    gone.loc[[3, 17], "left"] = None
    refused(gone, r"column 'left' has no label in row 3, 17 \(counted from 0\)")
    refused(frame, "it has no column 'right' of labels, but 'age', 'fare'", label="right")
    refused(frame.assign(fare=np.inf), "column 'fare' has an infinite number in row 0")
    refused(frame.assign(left="went"), "column 'left' must hold at least 2 classes")
    refused(frame[["name", "left"]], "it has no column of numbers or categories beside 'left'")
    refused(frame[:0], "it has no rows")
    refused(frame, "column 'fare' must hold classes, got fractions", label="fare")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1', b"a,b\n1,2\n3,4,5\n"])
def test_files_that_are_no_tables(pandas, tmp_path, content):
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.csv"):
        load_table(file, label="b")


@pytest.mark.parametrize("labels", [[True, False], [1.0, 2.0], [3, 7], ["a", "b"]])
def test_labels_of_any_type(pandas, tmp_path, labels):
    frame = pandas.DataFrame({"x": range(10), "y": labels * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = load_table(tmp_path / "t.csv", label="y")
    names = [str(int(label)) if isinstance(label, float) else str(label) for label in labels]
    assert sorted(names) == [*data.classes]
    assert len(data.test_y) == 2


def test_columns_need_sound_numbers():
    for std in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="there are no columns"):
            Columns("y", {"x": (0.0, std)}, {}, {}, {})
