"""What the campaign once found stays answered; its parts work."""

import json

import pytest

from soak.children import Kill, call
from soak.counts import BAD, judge
from soak.fuzz import label_changed, regressions
from soak.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("soak") / "world")


@pytest.mark.parametrize("found", list(regressions()), ids=lambda found: str(found["boxes"])[:60])
def test_once_found__is_answered_with_a_sentence(world, found):
    good = json.loads(world.boxes.read_text())
    kept = {image["id"] for image in good["images"][:2]}
    good["images"] = good["images"][:2]
    good["annotations"] = [a for a in good["annotations"] if a["image_id"] in kept][:4]
    end = label_changed(world, good, found["boxes"], found["options"])
    assert judge(end) not in BAD, end.text[-2000:]


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


def test_bounds__of_time_and_memory_are_kept(tmp_path):
    def forever():
        while True:
            pass

    def much():
        return len(bytearray(4 << 30))

    log = tmp_path / "log"
    assert call(forever, folder=tmp_path, log=log, seconds=0.5).kind == "hang"
    end = call(much, folder=tmp_path, log=log, gigabytes=1.0)
    assert end.kind == "traceback" and "MemoryError" in end.text
