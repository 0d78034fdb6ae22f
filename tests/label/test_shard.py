"""Job arrays: shards that know nothing of each other make one output."""

import subprocess
import sys

import pytest

from deepmac.errors import ConfigError
from deepmac.label.command import command
from deepmac.label.loading import BatchDataset
from deepmac.label.plan import images_per_part
from deepmac.label.settings import LabelSettings


@pytest.fixture
def words(model_dir, data, boxes_only, tmp_path):
    def make(name, *more):
        return ["--model", str(model_dir), "--images", str(data.images), "--boxes",
                str(boxes_only), "--out", str(tmp_path / name), "--accelerator", "cpu",
                "--workers", "0", *more]  # fmt: skip

    return make


def test_shards__the_last_one_writes_the_output_of_a_single_job(words, tmp_path, capsys):
    assert command(words("whole.json")) == 0
    for number in (2, 0):
        assert command(words("out.json", "--shard", f"{number}/3")) == 0
        assert not (tmp_path / "out.json").exists()
    assert "are left to the others" in capsys.readouterr().out
    assert command(words("out.json", "--shard", "1/3")) == 0
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert not (tmp_path / ".out.json.parts").exists()


@pytest.mark.slow
def test_shards_at_once__make_one_output(words, tmp_path):
    assert command(words("whole.json")) == 0
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "deepmac", "label", *words("out.json", "--shard", f"{n}/3")],
            stderr=subprocess.PIPE, text=True,
        )
        for n in range(3)
    ]  # fmt: skip
    for process in started:
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 0, said[-2000:]
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/2", "0/0"])
def test_no_shard__is_said(text, tmp_path):
    with pytest.raises(ConfigError, match="is no i/n"):
        LabelSettings(images=tmp_path, boxes=tmp_path, out=tmp_path / "o", shard=text)


def test_parts__grow_with_the_number_of_images():
    assert [images_per_part(n) for n in (10, 16_384, 10**6, 10**8)] == [16, 16, 976, 1024]


def test_batches__do_not_depend_on_the_size_of_parts(data, boxes_only):
    from deepmac.data.annotations.read_boxes import read_boxes
    from deepmac.label.plan import make_plan
    from deepmac.predict.letterbox import InputSpec

    def batches(together):
        plan = make_plan(read_boxes(boxes_only, data.images), data.images, images_together=together)
        made = BatchDataset(plan.parts, batch_size=3, spec=InputSpec(64))
        return [[view.task.position for view in share.views] for share in made.shares]

    assert batches(16) == batches(32) == batches(1024)
