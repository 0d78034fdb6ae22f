"""What a user gets wrong: one sentence that names the item, a count, an exit code, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepmac.cli import main


@pytest.fixture
def job(model_dir: Path, data: SimpleNamespace, boxes_only: Path, tmp_path: Path, capsys):
    """A job on a copy of the pictures; ``change`` mends the box file, ``run`` the command."""
    images = tmp_path / "images"
    content = json.loads(boxes_only.read_text())
    content["images"] = content["images"][:6]
    known = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in known]
    images.mkdir()
    for image in content["images"]:
        shutil.copy(data.images / image["file_name"], images)

    def run(*words: str, model: Path = model_dir) -> SimpleNamespace:
        boxes_only.write_text(json.dumps(content))
        given = ["--model", str(model), "--images", str(images), "--boxes", str(boxes_only)]
        given += ["--out", str(tmp_path / "out.json"), "--accelerator", "cpu", "--workers", "0"]
        code = main(["label", *given, *words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return SimpleNamespace(code=code, out=said.out, err=said.err.strip())

    return SimpleNamespace(
        run=run, content=content, images=images, out=tmp_path / "out.json", folder=tmp_path
    )


def break_box(value):
    def change(job) -> None:
        job.content["annotations"][2]["bbox"] = value

    return change


def break_points(job) -> None:
    entry = job.content["annotations"][2]
    entry["points"] = [[entry["bbox"][0] + 1, entry["bbox"][1] + 1, 1], [-5.0, 2.0, 1]]


def repeat_annotation(job) -> None:
    job.content["annotations"][2]["id"] = job.content["annotations"][0]["id"]


def unknown_image(job) -> None:
    job.content["annotations"][2]["image_id"] = 4711


def unknown_category(job) -> None:
    job.content["annotations"][2]["category_id"] = 99


def repeat_image(job) -> None:
    job.content["images"].append(dict(job.content["images"][0]))


def remove_picture(job) -> None:
    (job.images / job.content["images"][0]["file_name"]).unlink()


def cut_picture(job) -> None:
    path = job.images / job.content["images"][0]["file_name"]
    path.write_bytes(path.read_bytes()[:700])


def other_size(job) -> None:
    job.content["images"][0]["width"] = 50


def bomb(job) -> None:
    from PIL import Image

    path = job.images / job.content["images"][0]["file_name"]
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


FAULTS = {
    "reversed box": break_box([50, 50, -10, 10]),
    "zero-area box": break_box([50, 50, 0, 10]),
    "box outside image": break_box([500, 50, 10, 10]),
    "malformed box": break_box([float("nan"), 1, 10, 10]),
    "three numbers": break_box([1, 1, 10]),
    "malformed points": break_points,
    "duplicate annotation id": repeat_annotation,
    "unknown image id": unknown_image,
    "unknown category id": unknown_category,
    "duplicate image id": repeat_image,
    "missing image": remove_picture,
    "unreadable image": cut_picture,
    "wrong image size": other_size,
    "image too large": bomb,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_item__stops_or_is_skipped_and_counted(job, kind: str) -> None:
    FAULTS[kind](job)
    stopped = job.run()
    assert stopped.code == 1 and not job.out.exists()
    assert len(stopped.err.splitlines()) == 1 and stopped.err.startswith("deepmac: ")
    assert "--on-error skip" in stopped.err
    skipped = job.run("--on-error", "skip")
    assert skipped.code == 3, skipped
    made = json.loads(job.out.read_text())
    given = json.dumps([a["bbox"] for a in job.content["annotations"]]).replace("NaN", "null")
    assert json.dumps([a["bbox"] for a in made["annotations"]]) == given  # JSON has no NaN
    report = json.loads(job.out.with_suffix(".report.json").read_text())
    with_mask = sum("mask_score" in a for a in made["annotations"])
    total = len(job.content["annotations"])
    assert report["labelled"] == with_mask >= total - 4
    assert report["labelled"] + report["skipped"] + sum(report["left_alone"].values()) == total
    if kind != "three numbers":
        assert report["problem_kinds"] == {kind: 1}
        assert f"1 {kind}" in skipped.out


def test_mended_picture__goes_on_with_the_finished_work(job) -> None:
    name = job.content["images"][0]["file_name"]
    path = job.images / name
    whole = path.read_bytes()
    cut_picture(job)
    assert job.run().code == 1
    path.write_bytes(whole)
    assert job.run().code == 0


def test_missing_folders_models_and_words__are_one_sentence(job, tmp_path: Path, data) -> None:
    def said(*words: str, **more) -> str:
        done = job.run(*words, **more)
        assert done.code == 1 and not job.out.exists()
        assert len(done.err.splitlines()) == 1
        return done.err

    assert "no model" in said(model=tmp_path / "nothing")
    (tmp_path / "weights.ckpt").write_bytes(b"not weights")
    assert "is not a readable weight file" in said(model=tmp_path / "weights.ckpt")
    assert "does not exist" in said("--images", str(tmp_path / "no"))
    assert "do not exist" in said("--boxes", str(tmp_path / "no.json"))
    assert "--box-margin 7.0" in said("--box-margin", "7")
    assert "is no calibration" in said("--calibration", str(data.val))
    assert "is the box file" in said("--out", str(tmp_path / "boxes.json"))
    assert "cannot write" in said("--out", str(tmp_path / "weights.ckpt" / "out.json"))
    assert "is a folder" in said("--out", str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output__is_one_sentence(job, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    done = job.run("--out", str(closed / "out.json"))
    assert done.code == 1 and "cannot write" in done.err


def test_full_disk__is_one_sentence_and_keeps_what_is_done(job, monkeypatch) -> None:
    import errno

    from deepmac.label import inference

    real = inference._write_line
    lines: list[int] = []

    def full(file, record) -> None:
        lines.append(1)
        if len(lines) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, record)

    monkeypatch.setattr(inference, "_write_line", full)
    done = job.run()
    assert done.code == 1 and "No space left on device" in done.err
    assert "choose another --out" in done.err and "start again to go on" in done.err
    assert not job.out.exists()
    monkeypatch.undo()
    assert job.run().code == 0


def test_output_of_someone_else__is_not_replaced(job) -> None:
    job.out.write_text("mine")
    done = job.run()
    assert done.code == 1 and "exists already" in done.err
    assert job.out.read_text() == "mine"
    assert job.run("--overwrite").code == 0

    folder = job.folder / "folder"
    folder.mkdir()
    (folder / "holiday.jpg").write_text("mine")
    done = job.run("--out", str(folder), "--format", "png", "--overwrite")
    assert done.code == 1 and "not written by deepmac label" in done.err
    assert (folder / "holiday.jpg").read_text() == "mine"


def test_names_that_lead_out_of_the_folder__stay_inside(job) -> None:
    image = job.content["images"][0]
    job.content["images"][1]["file_name"] = "../images/" + job.content["images"][1]["file_name"]
    job.content["annotations"][0]["id"] = "../../evil"
    image["id_of_someone"] = "</script>"
    done = job.run("--format", "png", "--out", str(job.folder / "png"))
    assert done.code == 0
    inside = {p for p in (job.folder / "png").rglob("*.png")}
    assert len(inside) == len(job.content["annotations"])
    assert not list(job.folder.glob("*evil*")) and not list(job.folder.parent.glob("*evil*"))


def test_two_jobs_in_one_place__the_second_waits_its_turn(job, model_dir) -> None:
    import subprocess
    import sys

    folder = job.folder / ".out.json.parts"
    folder.mkdir()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "locked\n"
        done = job.run()
        assert done.code == 1 and "another process works in" in done.err
        other.stdin.close()
    assert job.run().code == 0
