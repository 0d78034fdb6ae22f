"""What the README says, done."""

import re
import shlex
from pathlib import Path

import numpy as np

from deepmac.lightning.compose import compose
from tiny import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_commands__name_settings_that_exist():
    for line in re.findall(r"^(?:python train\.py|deepmac (?:fit|validate)) (.+)$", README, re.M):
        words = shlex.split(line.partition("#")[0])
        overrides = [w for w in words if "=" in w and not w.startswith("-")]
        sweep = "-m" in words
        compose([w.split(",")[0] if sweep else w for w in overrides])


def test_installation__says_its_size_and_time():
    (line,) = re.findall(r"^pip install -e .*$", README[: README.index("deepmac demo")], re.M)
    makefile = (REPOSITORY / "Makefile").read_text()
    for text in (line, *re.findall(r"Installing into .*", makefile)):
        assert re.search(r"\d GB.* minutes", text), text


def test_links_and_pictures__are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_make_targets__exist():
    makefile = Path(REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_masks_for_my_boxes__as_promised(tmp_path):
    """The five lines, with a network of small size in a folder."""

    from deepmac import Predictor
    from deepmac.class_map import ClassMap
    from networks import tiny_network

    network = tiny_network(num_classes=2)
    classes = ClassMap((1, 2), ("cat", "dog"), frozenset({1}))
    predictor = Predictor(network, class_map=classes, image_size=64)
    predictor.set_image(np.zeros((48, 60, 3), dtype=np.uint8))
    masks, scores = predictor.predict(np.array([[4.0, 5.0, 40.0, 30.0]]))
    assert masks.shape == (1, 48, 60) and masks.dtype == bool
    assert scores.shape == (1,)
