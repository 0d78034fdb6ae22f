"""What an installed user has: the wheel alone, in an empty folder, without ``train.py``."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from tiny import REPOSITORY, TINY, environment

pytestmark = pytest.mark.slow
SWEEP = [
    "experiment=mask_head_study",
    *(word for word in TINY if not word.startswith(("model.head", "trainer.max_epochs"))),
    "mask_head=hourglass10",
    "model.train_boxes=gt,proposals",
    "model.backbone=resnet10t",
    "model.weights=null",
    "model.pyramid_width=8",
    "model.num_init_channels=4",
    "model.head_channels=8",
    "trainer.max_steps=2",
    "seed_everything=0",
    "hydra.sweep.dir=study",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command with the wheel's files before everything else on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, REPOSITORY], check=True)
    (wheel,) = folder.glob("deepmac-*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    empty = folder / "empty"
    empty.mkdir()

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=empty,
            env={**environment(folder / "cache"), "PYTHONPATH": os.fspath(site)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    found = run("-c", "import deepmac; print(deepmac.__file__)").stdout.strip()
    assert found == os.fspath(site / "deepmac" / "__init__.py")
    return empty, run


def test_sweep_and_study__work_from_a_wheel(installed):
    folder, run = installed
    done = run("-m", "deepmac", "fit", "-m", *SWEEP)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "masks learned on ground-truth boxes" in done.stdout
    (folder / "study" / "study.json").unlink()
    again = run("-m", "deepmac", "study", "study")
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(json.loads((folder / "study" / "study.json").read_text())["rows"]) == 2


def test_settings_model_and_pages__are_in_the_wheel(installed):
    _, run = installed
    done = run("-m", "deepmac", "settings", "experiment")
    assert done.returncode == 0 and "voc_to_nonvoc_1024" in done.stdout
    code = "import deepmac; print(type(deepmac.load_model('deepmac-lite')).__name__)"
    assert run("-c", code).stdout == "DeepMAC\n"
    code = "from importlib.resources import files; d = files('deepmac'); "
    pages = ("demo/page/index.html", "label/review.html", "report/page.html", "conf/train.yaml")
    code += f"print(all(d.joinpath(p).is_file() for p in {pages}))"
    assert run("-c", code).stdout == "True\n"
