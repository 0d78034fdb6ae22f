"""What the campaign once found stays answered; its parts work."""

import os
from pathlib import Path
from random import Random

import pytest

from soak.children import Bounds, Kill, Paused, call
from soak.counts import BAD, judge
from soak.damage import damaged
from soak.inputs import answer_again, regressions, wrong_of
from soak.kinds import kinds
from soak.world import World

KINDS = {kind.name: kind for kind in kinds()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("soak") / "world")


@pytest.mark.parametrize("found", list(regressions()), ids=lambda found: found["name"])
def test_once_found__is_answered_with_a_sentence(world, found):
    end = answer_again(world, KINDS[found["kind"]], found)
    assert (wrong_of(end) or judge(end)) not in BAD, end.text[-2000:]


def write_three(folder):
    for name in "abc":
        (folder / name).write_text(name)
    return 0


@pytest.mark.parametrize(("at", "left"), [(0, ""), (2, "ab"), (3, "abc")])
def test_kill__comes_before_the_write_that_was_asked_for(tmp_path, at, left):
    folder = tmp_path / "folder"
    folder.mkdir()
    end = call(lambda: write_three(folder), folder=folder, log=tmp_path / "log", kill=Kill(at))
    assert "".join(sorted(path.name for path in folder.iterdir())) == left
    assert end.kind == ("success" if at == 3 else "killed")


def write_for_long(path):
    from deepmac.files import atomic_binary

    with atomic_binary(path) as file:
        while True:
            file.write(b"x")


@pytest.mark.parametrize("cpu", [True, False], ids=["own time", "clock"])
def test_kill__can_come_in_the_middle_of_a_write(tmp_path, cpu):
    folder = tmp_path / "folder"
    folder.mkdir()
    kill = Kill(0, 0.03, cpu)
    end = call(lambda: write_for_long(folder / "a"), folder=folder, log=tmp_path / "log", kill=kill)
    assert end.kind == "killed" and end.within
    assert not list(folder.iterdir())


class Command:
    """Something that a command does halfway."""

    def second_half(self, path: Path) -> int:
        path.write_text(f"{os.getpid()}")
        return 3


def test_paused__forks_go_on_from_where_the_command_stands(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    paused = Paused(
        lambda: Command().second_half(folder / "a"),
        Command,
        "second_half",
        folder=folder,
        log=tmp_path / "first",
        environment={},
    )
    try:
        assert paused.call(tmp_path / "log", Kill(0)).kind == "killed"
        assert not list(folder.iterdir())
        ends = [paused.call(tmp_path / "log") for _ in range(2)]
        assert [end.code for end in ends] == [3, 3]
        assert [write.what for write in ends[0].writes] == ["open '/a'"]
    finally:
        paused.close()


def test_bounds__of_time_and_memory_are_kept(tmp_path):
    def forever():
        while True:
            pass

    def much():
        return len(bytearray(4 << 30))

    log = tmp_path / "log"
    for bounds in (Bounds(seconds=0.5), Bounds(cpu_seconds=0.3)):
        assert call(forever, folder=tmp_path, log=log, bounds=bounds).kind == "hang"
    end = call(much, folder=tmp_path, log=log, bounds=Bounds(gigabytes=1.0))
    assert end.kind == "traceback" and "MemoryError" in end.text


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".txt", ".png"])
def test_damage__is_the_same_for_the_same_seed(suffix):
    raw = b'{"a": [1, 2, {"b": "c"}], "d": 5}' * (30 if suffix in (".txt", ".png") else 1)
    seeds = [f"{Random(n).random()}" for n in range(40)]
    once = [damaged(raw, suffix, seed) for seed in seeds]
    assert once == [damaged(raw, suffix, seed) for seed in seeds]
    assert sum(one != raw for one in once) > 30
