"""Public names, signatures and pickles change on purpose alone."""

from __future__ import annotations

import base64
import json
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import public_api
import pytest
import stored_pickles

import agnostic_xent as ax

pytest.importorskip("sklearn")

STORED = json.loads(stored_pickles.FILE.read_text())
OBJECTS = stored_pickles.objects()


def test_names_and_signatures_are_those_in_the_file():
    assert public_api.public_api() == public_api.FILE.read_text(), public_api.__doc__


def test_a_name_that_is_gone_is_missed(monkeypatch):
    monkeypatch.setattr(ax, "__all__", [name for name in ax.__all__ if name != "relu"])
    lines = public_api.FILE.read_text().splitlines()
    assert public_api.public_api().splitlines() == [x for x in lines if not x.startswith("relu(")]


def test_everything_public_says_that_it_is_of_the_package():
    for name in [*ax.__all__, *public_api.NEED_SCIKIT_LEARN]:
        assert getattr(ax, name).__module__ == "agnostic_xent", name


def test_every_public_class_has_a_pickle():
    public = [*ax.__all__, *public_api.NEED_SCIKIT_LEARN]
    classes = {name for name in public if isinstance(getattr(ax, name), type)}
    assert classes - stored_pickles.UNPICKLED == STORED.keys() == OBJECTS.keys()


@pytest.mark.parametrize("name", STORED)
def test_a_pickle_of_an_earlier_version_loads(name):
    found, expected = pickle.loads(base64.b64decode(STORED[name])), OBJECTS[name]
    assert type(found) is type(expected)
    if hasattr(expected, "predict_proba"):
        x = np.linspace(-1, 1, 96).reshape(6, 1, 4, 4)
        x = x if name == "CNNClassifier" else x.reshape(6, -1)
        np.testing.assert_allclose(found.predict_proba(x), expected.predict_proba(x), rtol=1e-6)
    else:
        assert repr(found) == repr(expected) or vars(found) == vars(expected)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_pickle_names_no_file_of_the_package(name):
    texts = [arg for _, arg, _ in pickletools.genops(pickle.dumps(OBJECTS[name]))]
    assert not [text for text in texts if str(text).startswith("agnostic_xent.")]


@pytest.mark.parametrize("name", [name for name in ax.__all__ if name.islower()])
def test_a_function_is_pickled_by_its_public_name(name):
    assert pickle.loads(pickle.dumps(getattr(ax, name))) is getattr(ax, name)


def test_a_star_and_completion_know_the_estimators():
    space: dict = {}
    exec("from agnostic_xent import *", space)
    assert {*public_api.NEED_SCIKIT_LEARN, "relu"} <= space.keys()
    assert {*public_api.NEED_SCIKIT_LEARN, "relu", "__version__"} <= {*dir(ax)}
    assert sorted(set(ax.__all__)) == sorted(ax.__all__)


def test_a_star_without_scikit_learn(tmp_path):
    (tmp_path / "finder.py").write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'sklearn' else find(name, *more)\n"
        "from agnostic_xent import *\nprint('CNNClassifier' in dir(), relu.__name__)\n"
    )
    command = [sys.executable, str(tmp_path / "finder.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False relu\n", "")
