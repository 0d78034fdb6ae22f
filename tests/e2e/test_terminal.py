"""What a person sees of a run, on real terminals of 80 and 140 columns, from start to end."""

import os
import re
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from terminal import record
from tiny import TINY, deepmac, environment, train_py

LEFT = r"\d+:\d\d:\d\d left"
# Every line that may be seen, whole: one that wrapped, or that anybody else printed, is none.
LIVE = (
    rf"epoch \d+/\d+, step \d+/\d+  [━╸╺]{{8,}} +\d+ %  {LEFT}",
    rf"evaluation after step \d+(, batch \d/2)?  [━╸╺]{{8,}} +\d+ %  {LEFT}",
    r"(a first look at the evaluation|evaluation)(, batch \d/\d)?  [━╸╺]{8,} +\d+ %",
    r"waiting for the first batch",
    r"loss [\d.]+( +\w+ [\d.]+)* +[\d.]+ images/s, \d+ % data wait(\^C)?",
    r"Ctrl-C: stopping after this step, Ctrl-C again stops at once",
)
SAID = (
    r"(fit|validate), into \w+",
    r"deepmac: tf_efficientnet_lite0, mask head hourglass10, 3\.0 M parameters",
    r"0\.0801 GFLOP an image of 64 pixels before its masks; on CPU, precision 32-true",
    r"drawing \d+ images .*",
    r"step \d+: box AP [\d.]+, mask AP [\d.]+, mIoU seen [\d.]+, mIoU unseen [\d.]+",
    r"\d+ steps? in \d:\d\d:\d\d: [\d.]+ images/s, \d+ % data wait(\^C)?",
    r"run directory: .*",
    r"\^C",
)
TABLE = r" +4 images, \d+ objects|[┏┡├└┃│].*[┓┩┤┘┃│]|in percent; .*"
RUN = [w for w in TINY if not w.startswith(("trainer.max_epochs", "trainer.check_val"))]


def seen(recording, columns):
    """Check every picture up to a sentence that ends it; all lines that lived."""
    allowed, live = re.compile("|".join((*LIVE, *SAID, TABLE))), re.compile("|".join(LIVE))
    lived = []
    for _, lines in recording.frames:
        lines = list(takewhile(lambda line: not line.startswith("deepmac: stopped"), lines))
        for line in lines:
            assert allowed.fullmatch(line), line
            assert len(line) <= columns
        alive = [number for number, line in enumerate(lines) if live.fullmatch(line)]
        assert len(alive) <= 2, "a line was left behind: " + "\n".join(lines)
        assert alive == list(range(len(lines) - len(alive), len(lines))), "not at the foot"
        lived += [lines[number] for number in alive]
    assert not any(live.fullmatch(line) for line in recording.end)
    return lived


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(80, ("loss", "mask")), pytest.param(140, ("loss", "offset"), marks=pytest.mark.slow)],
)
def test_training__is_two_lines_that_never_wrap(tmp_path, columns, shown):
    words = [*RUN, "trainer.max_steps=16", "hydra.run.dir=run"]
    words += ["trainer.check_val_every_n_epoch=2"]
    recording = record(
        train_py(*words), columns=columns, cwd=tmp_path, environment=environment(tmp_path / "cache")
    )
    assert recording.code == 0, recording.end
    assert recording.frames[0][1] == ["fit, into run"] and recording.frames[0][0] < 2
    lived = seen(recording, columns)
    losses = [line for line in lived if line.startswith("loss")]
    assert losses and all(len(line) == columns - 4 for line in losses)
    assert all(name in line for name in shown for line in losses)
    assert any(line.startswith("evaluation after step") for line in lived)
    assert recording.end[-1].startswith("in percent")


@pytest.fixture
def place(tmp_path):
    """Where a printed command is found, as on the terminal of whoever typed the first one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {**environment(tmp_path / "cache"), "PATH": path}
    return {"columns": 80, "cwd": tmp_path, "environment": kept}


def command_that_goes_on(recording, columns):
    """A terminal cuts a long line where it ends."""
    text = "".join(line.ljust(columns) for line in recording.end)
    return re.search(r"to go on: (.*?ckpt_path=last\S*( trainer\.max_time=\S+)?)", text)[1]


def test_ctrl_c__is_heard_at_once_and_ends_with_the_command_that_goes_on(place):
    words = [*RUN, "trainer.max_epochs=10", "callbacks=ema", "hydra.run.dir=run"]
    stopped = record(
        deepmac("fit", *words),
        interrupt=lambda lines: re.search(r"step (?!0|1/|2/)\d+/40", "".join(lines)) is not None,
        **place,
    )
    assert stopped.code == 130
    seen(stopped, 80)
    assert "Ctrl-C: stopping after this step" in stopped.written  # a short step leaves it no time
    again = record(["sh", "-c", command_that_goes_on(stopped, 80)], **place)
    assert again.code == 0, again.end
    lived = seen(again, 80)
    steps = [int(m[1]) for line in lived if (m := re.match(r"epoch \d+/10, step (\d+)/40", line))]
    assert min(steps) > 3 and again.end[-1].startswith("in percent")


@pytest.mark.slow
def test_max_time__is_the_time_that_is_left_and_ends_with_the_command_that_goes_on(place):
    words = [*RUN, "trainer.max_epochs=-1", "trainer.max_steps=-1"]
    stopped = record(train_py(*words, "trainer.max_time=00:00:00:04", "hydra.run.dir=run"), **place)
    assert stopped.code == 0, stopped.end
    shown = [line for _, lines in stopped.frames for line in lines if line.startswith("epoch")]
    assert shown and all(re.search(r" \d+ %  0:00:0[0-6] left$", line) for line in shown)
    assert stopped.end[-1].startswith("in percent")
    command = command_that_goes_on(stopped, 80)
    assert re.search(r"trainer\.max_time=00:00:00:\d\d", command)
    again = record(["sh", "-c", command], **place)
    assert again.code == 0, again.end
    first = int(re.search(r"after step (\d+)", "".join(stopped.end))[1])
    assert int(re.search(r"after step (\d+)", "".join(again.end))[1]) > first
