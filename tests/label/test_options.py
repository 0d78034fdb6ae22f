"""The command line: every setting once, said at once, checked before torch is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepmac.errors import ConfigError
from deepmac.label.options import label_parser, parse_arguments
from deepmac.label.settings import FORMATS, setting_names
from deepmac.label.writers import FILE_WRITERS, FOLDER_WRITERS
from tiny import deepmac, environment

GIVEN = ["--images", "i", "--boxes", "b", "--out", "o"]


def test_every_setting__is_an_option_of_the_same_name() -> None:
    text = label_parser().format_help()
    for name in setting_names():
        assert f"--{name.replace('_', '-')}" in text


def test_every_format__has_a_writer() -> None:
    assert set(FORMATS) == FILE_WRITERS.keys() | FOLDER_WRITERS.keys()


def test_values__are_of_their_settings_types() -> None:
    words = "--tighten-boxes --fill-holes false --max-per-image 3 --devices auto --classes 0,2 "
    settings = parse_arguments([*GIVEN, *words.split(), "--box_margin", "0.1"])
    assert settings.model == "deepmac-lite"
    assert settings.images == Path("i") and settings.tighten_boxes and not settings.fill_holes
    assert (settings.max_per_image, settings.devices, settings.classes) == (3, "auto", "0,2")
    assert settings.box_margin == 0.1 and settings.calibration is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--box-margin x", "--box-margin is x, but takes float"),
        ("--box-margin nan", "--box-margin"),
        ("--format tiff", "--format is tiff, but takes one of"),
        ("--nonsense 1", "--nonsense"),
        ("--batch-size 0", "--batch-size 0"),
        ("--workers -1", "--workers"),
        ("--max-per-image 0", "--max-per-image 0"),
        ("--link --format png", "--link is for yolo-seg, yolo, labelme"),
        ("--calibrate c.json", "job of its own"),
    ],
)
def test_wrong_values__are_one_short_sentence(words: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments([*GIVEN, *words.split()])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_wrong_paths__are_said_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from deepmac.cli import main; code = main(sys.argv[1:]); "
        "print('torch' in sys.modules); sys.exit(code)"
    )
    words = ["label", "--images", str(tmp_path), "--boxes", str(tmp_path / "no.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--out", str(tmp_path / "out.json")],
        env=environment(tmp_path), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "do not exist" in done.stderr
    assert done.stdout.startswith("label: boxes of ") and done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signals__end_the_job_in_order_and_say_what_is_kept(
    model_dir: Path, data: SimpleNamespace, boxes_only: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out.json"
    words = ["--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes_only)]
    words += ["--out", str(out), "--accelerator", "cpu", "--workers", "1", "--batch-size", "1"]
    begun = subprocess.Popen(
        deepmac("label", *words), env=environment(tmp_path), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    parts = tmp_path / ".out.json.parts"
    while begun.poll() is None and not list(parts.glob("part-*")):
        time.sleep(0.005)
    os.killpg(begun.pid, number)
    _, said = begun.communicate(timeout=120)
    if begun.returncode == 0:
        pytest.skip("the job was done before the signal came")
    assert begun.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "are kept in" in said and "give the same command again to go on" in said
    assert not out.exists() and list(parts.glob("part-*"))
    done = subprocess.run(
        deepmac("label", *words), env=environment(tmp_path), capture_output=True, timeout=120
    )
    assert done.returncode == 0 and out.exists()
