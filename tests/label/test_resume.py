"""A job that was killed and started again gives the very bytes of one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny import deepmac, environment

SERVER = Path(__file__).with_name("fork_server.py")
KILLED = -signal.SIGKILL


class Server:
    """Forks jobs on request."""

    def __init__(self, model: Path, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._line() == "ready"

    def run(self, *arguments: str, die_at: int | None = None, kill_after: float | None = None):
        """The exit code of one job; killed after some seconds, or at a step onto the disk."""
        request = {"arguments": arguments, "die_at": die_at, "log": str(self.log)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        child = int(self._line())
        if kill_after is not None:
            time.sleep(kill_after)
            # The server reaps the child only after it has died, so the id is still the child's
            # unless the job was over already.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(self._line())

    def _line(self) -> str:
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(model_dir, tmp_path_factory.mktemp("log") / "log.txt")
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=30)


@pytest.fixture
def job(model_dir: Path, data: SimpleNamespace, boxes_only: Path, tmp_path: Path):
    """Arguments of a job that writes to a given place."""

    def arguments(name: str, *more: str, workers: int = 0) -> list[str]:
        return [
            *("--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes_only)),
            *("--out", str(tmp_path / name), "--accelerator", "cpu", "--workers", str(workers)),
            *more,
        ]

    return arguments


def files(path: Path) -> dict[str, bytes]:
    """Content of a file, or of all files in a folder, the report's own place left out."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def few(data: SimpleNamespace, tmp_path: Path) -> Path:
    """Five pictures, their boxes with scores, some with points, one mask of a person."""
    content = json.loads(data.train.read_text())
    content["images"] = content["images"][:5]
    kept = {image["id"] for image in content["images"]}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    human = next(n for n, entry in enumerate(annotations) if entry["segmentation"])
    for n, entry in enumerate(annotations):
        entry["score"] = (n % 10) / 10
        if n % 3 == 0:
            x, y, width, height = entry["bbox"]
            entry["points"] = [[x + width / 2, y + height / 2, n % 2]]
        if n != human:
            entry["segmentation"] = []
    path = tmp_path / "few.json"
    path.write_text(json.dumps({**content, "annotations": annotations}))
    return path


CHOICES = ("--classes 1,2,3,4,5,6", "--min-score 0.4", "--redo marks.json", "--tiles")
SLOW = ("--max-per-image 1", "--format labelme", "--format png", "--format yolo --link")
EVERY_OPTION = (
    *(f"--format {name}" for name in ("yolo-seg", "yolo", "labelstudio")),
    *CHOICES,
    *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW),
)


def test_killed_at_every_step_onto_the_disk__finishes_with_the_same_bytes(
    server: Server, job, tmp_path: Path
) -> None:
    killed_at_every_step(server, job, tmp_path, [])


@pytest.mark.parametrize("options", EVERY_OPTION)
def test_killed_with_every_option__finishes_with_the_same_bytes(
    server: Server, job, few: Path, tmp_path: Path, options: str
) -> None:
    words = options.split()
    if "--redo" in words:
        assert server.run(*job("first.json", "--boxes", str(few))) == 0
        few = tmp_path / "first.json"
        made = json.loads(few.read_text())["annotations"]
        listed = [entry["id"] for entry in made if "mask_score" in entry][:4]
        (tmp_path / "marks.json").write_text(json.dumps(listed))
        words = ["--redo", str(tmp_path / "marks.json"), "--box-margin", "0.2"]
    # Every third half-step: before one, after the next but one.
    killed_at_every_step(server, job, tmp_path, ["--boxes", str(few), *words], stride=3)


def killed_at_every_step(
    server: Server, job, tmp_path: Path, words: list[str], stride: int = 1
) -> None:
    assert server.run(*job("whole", *words)) == 0
    expected = files(tmp_path / "whole")
    leave = set(leftovers(tmp_path))
    for step in range(0, 1000, stride):
        name = f"killed-{step}"
        code = server.run(*job(name, *words), die_at=step)
        if code == 0:  # the job has no such step
            break
        assert code == KILLED, server.log.read_text()
        assert server.run(*job(name, *words)) == 0, server.log.read_text()
        assert files(tmp_path / name) == expected, step
        assert set(leftovers(tmp_path)) == leave
    assert step > 5


def killed_at_random(server: Server, job, tmp_path: Path, *, kills: int, workers: int) -> None:
    started = time.monotonic()
    assert server.run(*job("whole", workers=workers)) == 0
    duration = time.monotonic() - started
    moments = random.Random(0)
    left, landed, attempt = kills, 0, 0
    while left:
        words = job(f"killed-{attempt}", workers=workers)
        code = server.run(*words, kill_after=moments.uniform(0, duration))
        if code == KILLED:
            left, landed = left - 1, landed + 1
            if left and moments.random() < 0.7:
                continue  # once more into the same half-done job
        assert server.run(*words) == 0, server.log.read_text()
        assert files(tmp_path / f"killed-{attempt}") == files(tmp_path / "whole")
        assert not leftovers(tmp_path)
        attempt += 1
    assert landed == kills


def test_killed_at_random_moments__finishes_with_the_same_bytes(
    server: Server, job, tmp_path: Path
) -> None:
    killed_at_random(server, job, tmp_path, kills=4, workers=0)


@pytest.mark.slow
def test_killed_twenty_times_with_workers__finishes_with_the_same_bytes(
    server: Server, job, tmp_path: Path
) -> None:
    killed_at_random(server, job, tmp_path, kills=20, workers=2)


@pytest.mark.slow
def test_process_without_a_part__waits_for_the_other(
    server: Server, job, boxes_only: Path, tmp_path: Path
) -> None:
    content = json.loads(boxes_only.read_text())
    first = content["images"][0]["id"]
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == first]
    boxes_only.write_text(json.dumps(content))
    two = deepmac("label", *job("two"), "--devices", "2")
    done = subprocess.run(two, env=environment(tmp_path), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert server.run(*job("whole")) == 0
    assert files(tmp_path / "two") == files(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes__write_the_same_bytes_as_one_and_resume_each_other(
    server: Server, job, tmp_path: Path
) -> None:
    assert server.run(*job("whole")) == 0
    two = deepmac("label", *job("two", workers=1), "--devices", "2")
    done = subprocess.run(two, env=environment(tmp_path), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert files(tmp_path / "two") == files(tmp_path / "whole")

    begun = subprocess.Popen(
        deepmac("label", *job("both", workers=1), "--devices", "2"),
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parts = tmp_path / ".both.parts"
    while begun.poll() is None and not list(parts.glob("part-*")):
        time.sleep(0.01)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait(timeout=60)
    assert server.run(*job("both")) == 0, server.log.read_text()
    assert files(tmp_path / "both") == files(tmp_path / "whole")


@pytest.mark.slow
def test_processes_started_by_torchrun__share_one_job(server: Server, job, tmp_path: Path) -> None:
    """As on several hosts: all start at once, each by itself."""
    assert server.run(*job("whole")) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "--no-python", *deepmac("label", *job("two"), "--devices", "2")]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert files(tmp_path / "two") == files(tmp_path / "whole")
    assert not leftovers(tmp_path)


def test_finished_job_started_again__says_so_and_changes_nothing(
    server: Server, job, tmp_path: Path
) -> None:
    assert server.run(*job("out.json")) == 0
    before = (tmp_path / "out.json").stat().st_mtime_ns
    assert server.run(*job("out.json")) == 0
    assert (tmp_path / "out.json").stat().st_mtime_ns == before


def test_half_done_job__refuses_another_model_or_other_boxes_or_settings(
    server: Server, job, boxes_only: Path, tmp_path: Path
) -> None:
    assert server.run(*job("out.json"), die_at=5) == KILLED
    kept = files(tmp_path / ".out.json.parts")
    assert any(name.startswith("part-") for name in kept)

    def refused(*words: str) -> str:
        server.log.write_text("")
        assert server.run(*words) == 1
        return server.log.read_text()

    assert "another box_margin (it was 0.0, now 0.1)" in refused(
        *job("out.json", "--box-margin", "0.1")
    )
    for name, words in (
        ("tiles (it was False, now True)", ["--tiles"]),
        ("min_score (it was None, now 0.5)", ["--min-score", "0.5"]),
        ("classes", ["--classes", "2,1"]),
        ("max_per_image", ["--max-per-image", "2"]),
        ("refine (it was 'none', now 'edges')", ["--refine", "edges"]),
        ("threshold (it was 0.5, now 0.4)", ["--threshold", "0.4"]),
        ("format", ["--format", "labelstudio"]),
        ("format", ["--format", "yolo", "--link"]),
    ):
        assert f"another {name}" in refused(*job("out.json", *words))
    content = json.loads(boxes_only.read_text())
    text = boxes_only.read_text()
    content["annotations"][0]["bbox"][2] += 1
    boxes_only.write_text(json.dumps(content))
    message = refused(*job("out.json"))
    assert "unfinished job with another boxes" in message and "--restart" in message
    assert "Traceback" not in message
    assert files(tmp_path / ".out.json.parts") == kept
    boxes_only.write_text(text)
    assert server.run(*job("out.json")) == 0

    assert server.run(*job("new.json"), die_at=5) == KILLED
    assert server.run(*job("new.json", "--box-margin", "0.1", "--restart")) == 0


def test_half_done_job__of_a_choice_goes_on_with_that_choice_alone(
    server: Server, job, few: Path, tmp_path: Path
) -> None:
    """Classes are what they mean, by name or id, in any order; lists of ``--redo`` their ids."""
    content = json.loads(few.read_text())
    one, other = content["categories"][:2]
    given = ("--boxes", str(few), "--classes")
    assert server.run(*job("out.json", *given, f"{one['id']},{other['name']}"), die_at=3) == KILLED
    server.log.write_text("")
    assert server.run(*job("out.json", *given, one["name"])) == 1
    assert "another classes" in server.log.read_text()
    assert server.run(*job("out.json", *given, f"{other['name']}, {one['name']}")) == 0
    whole = job("whole.json", *given, f"{one['id']},{other['id']}")
    assert server.run(*whole) == 0
    assert files(tmp_path / "out.json") == files(tmp_path / "whole.json")

    assert server.run(*job("first.json", "--boxes", str(few))) == 0
    first, marks = tmp_path / "first.json", tmp_path / "marks.json"
    ids = [a["id"] for a in json.loads(first.read_text())["annotations"] if "mask_score" in a]
    redo = ("--boxes", str(first), "--redo", str(marks), "--box-margin", "0.3")
    marks.write_text(json.dumps(ids[:3]))
    assert server.run(*job("again.json", *redo), die_at=3) == KILLED
    marks.write_text(json.dumps(ids[:4]))
    server.log.write_text("")
    assert server.run(*job("again.json", *redo)) == 1
    assert "another redo" in server.log.read_text()
    marks.write_text(json.dumps({"format": "deepmac-review-1", "wrong": ids[2::-1]}))
    assert server.run(*job("again.json", *redo)) == 0
    before, after = (path.read_bytes().split(b"\n") for path in (first, tmp_path / "again.json"))
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(changed) == 4  # three masks, and the note on the job


def test_picture_that_changed_meanwhile__is_labelled_again(
    server: Server, job, data: SimpleNamespace, tmp_path: Path
) -> None:
    from deepmac.label.parts import image_stamp

    assert server.run(*job("out.json"), die_at=5) == KILLED
    part = next((tmp_path / ".out.json.parts").glob("part-*"))
    stamp = json.loads(part.read_text().splitlines()[0])["images"]
    part.write_text(part.read_text().replace(stamp, image_stamp([])))
    assert server.run(*job("out.json")) == 0
    assert server.run(*job("whole.json")) == 0
    assert files(tmp_path / "out.json") == files(tmp_path / "whole.json")
