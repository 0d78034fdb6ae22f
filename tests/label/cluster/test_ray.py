"""A job on two local Ray workers: killed workers, killed drivers, one answer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepmac.data.shapes.data_set import write_shapes
from deepmac.label.cluster import from_parquet, to_parquet
from deepmac.label.command import command as label_command
from tiny import environment

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
BOXES = 2000


@pytest.fixture(scope="module")
def job(model_dir, tmp_path_factory):
    """2,000 boxes as tables, one corrupt picture, and the local engine's masks by id."""
    folder = tmp_path_factory.mktemp("job")
    write_shapes(folder / "set", num_train=1100, num_val=1, size=96)
    content = json.loads((folder / "set/annotations/instances_train.json").read_text())
    content["annotations"] = [a | {"segmentation": []} for a in content["annotations"]][:BOXES]
    assert len(content["annotations"]) == BOXES
    (folder / "boxes.json").write_text(json.dumps(content))
    words = ["--model", str(model_dir), "--images", str(folder / "set/images"), "--boxes",
             str(folder / "boxes.json"), "--out", str(folder / "local.json"),
             "--accelerator", "cpu", "--workers", "0"]  # fmt: skip
    assert label_command(words) == 0
    local = json.loads((folder / "local.json").read_text())["annotations"]
    to_parquet.convert(folder / "boxes.json", str(folder / "tables"), group=32)
    return folder, {entry["id"]: entry for entry in local}


def start(job, model_dir, out):
    folder, _ = job
    words = ["-m", "deepmac", "label", "--engine", "ray", "--model", str(model_dir), "--images",
             str(folder / "set/images"), "--boxes", str(folder / "tables"), "--out", str(out),
             "--actors", "2"]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment(folder / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, code=0):
    said, errors = process.communicate(timeout=500)
    assert process.returncode == code, errors[-3000:]
    return said


def wait_for_tables(out, count, process):
    while process.poll() is None and len(list(Path(out).glob("part-*.parquet"))) < count:
        time.sleep(0.02)


def actors(driver):
    """Process ids of the actors of a driver's own cluster."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(words[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue

    def is_below(process):
        while process in parents:
            process = parents[process]
            if process == driver:
                return True
        return False

    return [p for p, name in names.items() if name.startswith("ray::MapWorker") and is_below(p)]


def assert_masks_are_the_local_engines(out, job, tmp_path):
    counts = from_parquet.convert(str(out), "coco", tmp_path / "back.json")
    found = json.loads((tmp_path / "back.json").read_text())["annotations"]
    assert [entry["id"] for entry in found] == list(job[1])
    assert counts.masks == BOXES and counts.errors == 0
    for entry in found:
        for name in ("segmentation", "area", "mask_score"):
            assert entry[name] == job[1][entry["id"]][name]


def tables(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("part-*.parquet")}


def test_two_workers_one_killed__give_the_local_engines_masks(job, model_dir, tmp_path):
    out = tmp_path / "masks"
    process = start(job, model_dir, out)
    wait_for_tables(out, 5, process)
    victims = actors(process.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert f"{BOXES:,} boxes now, 0 of them without a mask" in finish(process)
    assert_masks_are_the_local_engines(out, job, tmp_path)


def test_killed_driver_started_again__gives_the_same_tables(job, model_dir, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    finish(start(job, model_dir, whole))
    process = start(job, model_dir, out)
    wait_for_tables(out, 8, process)
    process.kill()
    process.wait()
    time.sleep(3)  # its actors end by themselves
    there = tables(out)
    assert 8 <= len(there) < len(tables(whole))
    said = finish(start(job, model_dir, out))
    assert int(said.split("(")[1].split()[0]) >= len(there)
    assert tables(out) == tables(whole)
    assert "0 boxes now" in finish(start(job, model_dir, out))
    assert_masks_are_the_local_engines(out, job, tmp_path)


def test_dataset__is_the_python_door(job, model_dir, tmp_path):
    code = (
        "import sys, ray, deepmac.label as label\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "boxes = ray.data.read_parquet(sys.argv[1])\n"
        "masks = label.dataset(boxes, sys.argv[2], images=sys.argv[3], actors=1)\n"
        "rows = masks.take_all()\n"
        "assert all(row['rle'] and row['error'] is None for row in rows)\n"
        "print(len(rows))\n"
    )
    words = [str(job[0] / "tables"), str(model_dir), str(job[0] / "set/images")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300,
        env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == str(BOXES)
