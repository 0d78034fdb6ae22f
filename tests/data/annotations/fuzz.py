"""Damaged exports of every format: read as they say, or told; never a traceback, never a hang.

What is read is compared with what the damaged files say by other means (``plainly.py``).
``python -m data.annotations.fuzz --rounds 500`` tries many; the tests try a few of each.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from data.annotations import exports, plainly
from deepmac.data.annotations.coco import CocoIndex
from deepmac.data.annotations.problems import Problem
from deepmac.data.settings import read_annotations
from deepmac.errors import UserError

SLOW = 20.0
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**63, -0.0),
    *("", "x", "\ud800", "a" * 5000, "../../etc/passwd", "\0", "1", "NaN", "é", "\u202e", 10**400),
    *([], {}, [[]], [None], {"a": {}}, 0.5, [[1, 2], [3]], [1e400]),
)
_WORDS = (
    *(b"nan", b"inf", b"1e999", b"-1", b"99999999999999999999", b"\xff\xfe", b"\0", b"<", b"&x;"),
    *(b"]]>", b"{", b"*a", b"&a [*a,*a]", b"%", b"\\", b"\n", b"\t", b"0x1F", b"yes", b"'"),
)


def mutate(path: Path, draw: random.Random) -> str:
    """Damage one file in place; returns what was done."""
    if path.suffix == ".json" and draw.random() < 0.75:
        return _mutate_json(path, draw)
    data = bytearray(path.read_bytes())
    kind = draw.choice(("cut", "flip", "insert", "number", "repeat"))
    if not data:
        kind = "insert"
    at = draw.randrange(len(data) + 1) if data else 0
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == "insert":
        data[at:at] = draw.choice(_WORDS)
    elif kind == "repeat":
        data[at:at] = data[at : at + 200] * draw.randint(1, 50)
    else:
        found = list(re.finditer(rb"-?\d+\.?\d*", bytes(data)))
        if found:
            where = draw.choice(found)
            data[where.start() : where.end()] = draw.choice(_WORDS)
    path.write_bytes(bytes(data))
    return f"{kind} at {at} of {path.name}"


def _mutate_json(path: Path, draw: random.Random) -> str:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return "left"
    done = []
    for _ in range(draw.randint(1, 3)):
        place: Any = content
        trail = ""
        while isinstance(place, dict | list) and place:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            trail += f"/{key}"
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or draw.random() < 0.15:
                if draw.random() < 0.2 and isinstance(place, dict):
                    del place[key]
                else:
                    place[key] = copy.deepcopy(draw.choice(_VALUES))
                break
            place = inner
        done.append(trail)
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
    return f"{path.name}: {' '.join(done)}"


def try_one(name: str, seed: int, folder: Path) -> tuple[str, str]:
    """(outcome, words): "read", "told", "traceback", "slow" or "silent"."""
    draw = random.Random(f"{name}-{seed}")
    exports.ALL[name](folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".jpg")
    damaged = draw.choice(files)
    done = mutate(damaged, draw)
    begun = time.monotonic()
    said: list[Problem] = []
    lost = 0
    things: list[plainly.Thing] = []
    try:
        for split in ("train", "val"):
            index = read_annotations({"root": folder, "on_error": "drop"}, split)
            said += [p for p in index.problems if p.kind not in _USUAL]
            lost += index.dropped.get("annotations", 0) + index.dropped.get("masks", 0)
            things += things_of(index)
            for line in index.dropped_summary():
                line.encode("utf-8")
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > 3000:
            return "traceback", f"{done}: a message of many lines {str(error)[:200]}"
        return "told", done
    except Exception:
        return "traceback", f"{done}\n{traceback.format_exc()}"
    if time.monotonic() - begun > SLOW:
        return "slow", done
    wanted = plainly.read(name, folder)
    if wanted is None:  # by no other means is it readable either: it has to be told
        unreadable = damaged.suffix in (".json", ".xml", ".png") and not said
        return ("silent", f"{done}: unreadable, not told") if unreadable else ("told", done)
    extra, missing = plainly.unlike(things, wanted.things)
    told = len(said) + lost
    if damaged.suffix == ".yaml" or damaged.parent == folder:  # a list of what belongs to the set
        missing, things = 0, list(dict.fromkeys(things))
        extra, _ = plainly.unlike(things, wanted.things)
    if any(p.kind in _OF_ALL for p in said):
        return "told", done
    if missing > told or extra > wanted.unclear + told:
        text = f"{done}: {extra} more and {missing} fewer objects than it says; {told} told, "
        return "silent", f"{text}{wanted.unclear} unclear; {[p.message for p in said][:2]}"
    return ("told" if said else "read"), done


_USUAL = {
    "validation set held out", "turned boxes", "category left out", "segment of stuff",
}  # fmt: skip


_OF_ALL = {
    "outlines of four corners", "class ids numbered", "class without a name", "file not read",
}  # fmt: skip
"""Kinds of which one entry is of the whole set."""


def things_of(index: CocoIndex) -> list[plainly.Thing]:
    names = {c.id: c.name for c in index.categories}
    return [
        plainly.Thing(
            Path(image.file_name.replace("\\", "/")).stem, names[item.category_id], item.box,
            item.segmentation is not None,
        )
        for image in index.images
        for item in image.instances
    ]  # fmt: skip


def main() -> int:
    """Try many and count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(exports.ALL), default=list(exports.ALL))
    options = parser.parse_args()
    bad = 0
    for name in options.only:
        outcomes: Counter[str] = Counter()
        for number in range(options.rounds):
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            try:
                outcome, words = try_one(name, options.seed + number, folder)
            finally:
                shutil.rmtree(folder)
            outcomes[outcome] += 1
            if outcome not in ("read", "told"):
                bad += 1
                print(f"{name} seed {options.seed + number}: {outcome}: {words}", flush=True)
        print(f"{name}: {dict(outcomes)}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
