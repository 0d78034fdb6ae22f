"""Which boxes get a mask: by score, class, number; and masks made anew while all else stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepmac.cli import main

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(model_dir: Path, data: SimpleNamespace, tmp_path: Path, capsys) -> Run:
    def label(boxes: Path, *words: str, out: str = "out.json", code: int = 0) -> SimpleNamespace:
        given = ["--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes)]
        given += ["--out", str(tmp_path / out), "--accelerator", "cpu", "--workers", "0"]
        found = main(["label", *given, *words])
        said = capsys.readouterr()
        assert found == code, said
        path = tmp_path / out
        content = json.loads(path.read_text()) if path.is_file() else None
        return SimpleNamespace(path=path, content=content, out=said.out, err=said.err)

    return label


@pytest.fixture
def scored(boxes_only: Path) -> Path:
    """Scores 0.0, 0.1, ..., 0.9 over and over; every eleventh box has none."""
    content = json.loads(boxes_only.read_text())
    for n, entry in enumerate(content["annotations"]):
        if n % 11:
            entry["score"] = (n % 10) / 10
    boxes_only.write_text(json.dumps(content))
    return boxes_only


def with_mask(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in content["annotations"] if "mask_score" in entry]


def test_min_score__leaves_out_boxes_of_a_lower_one_and_keeps_them_in_the_file(
    run: Run, scored: Path
) -> None:
    done = run(scored, "--min-score", "0.5")
    low = [a for a in done.content["annotations"] if a.get("score", 1) < 0.5]
    assert low and not any("mask_score" in entry for entry in low)
    assert len(with_mask(done.content)) == len(done.content["annotations"]) - len(low)
    assert f"{len(low)} x score below --min-score" in done.out


def test_classes__are_names_or_ids(run: Run, boxes_only: Path) -> None:
    categories = json.loads(boxes_only.read_text())["categories"]
    one, other = categories[0], categories[1]
    made = run(boxes_only, "--classes", one["name"]).content
    assert {a["category_id"] for a in with_mask(made)} == {one["id"]}
    made = run(boxes_only, "--classes", f"{one['name']}, {other['id']}", out="two.json").content
    assert {a["category_id"] for a in with_mask(made)} == {one["id"], other["id"]}
    refused = run(boxes_only, "--classes", "unicorn", out="none.json", code=1)
    assert "has no class 'unicorn'" in refused.err


def test_max_per_image__keeps_the_boxes_of_highest_score(run: Run, scored: Path) -> None:
    made = run(scored, "--max-per-image", "1").content
    by_image: dict[int, list[dict[str, Any]]] = {}
    for entry in made["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    assert max(map(len, by_image.values())) > 1
    for entries in by_image.values():
        (best,) = (entry for entry in entries if "mask_score" in entry)
        assert best.get("score", 2) == max(entry.get("score", 2) for entry in entries)


def test_redo__makes_the_listed_masks_anew_and_touches_nothing_else(
    run: Run, data: SimpleNamespace, tmp_path: Path
) -> None:
    first = run(data.train)
    ours = [entry["id"] for entry in with_mask(first.content)]
    human = next(a["id"] for a in first.content["annotations"] if "mask_score" not in a)
    listed = [*ours[:3], human]
    marks = tmp_path / "wrong.json"
    marks.write_text(json.dumps({"format": "deepmac-review-1", "wrong": listed}))
    words = ("--redo", str(marks), "--box-margin", "0.2")
    second = run(first.path, *words, out="second.json")
    before, after = (p.read_bytes().split(b"\n") for p in (first.path, second.path))
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    entries = [json.loads(after[n].rstrip(b",")) for n in changed[:-1]]
    assert [entry["id"] for entry in entries] == ours[:3]
    assert b'"redone"' in after[changed[-1]]  # the job's own note
    assert "3 masks" in second.out
    # The same, from a plain list, again, is the same job.
    marks.write_text(json.dumps(listed))
    again = run(first.path, *words, out="second.json")
    assert again.path.read_bytes() == second.path.read_bytes()
    # Third: what was done anew can be done anew.
    third = run(second.path, "--redo", str(marks), out="third.json")
    assert [a for a in third.content["annotations"] if a["id"] in listed] == [
        a for a in first.content["annotations"] if a["id"] in listed
    ]


def test_redo__of_what_is_not_there_is_one_sentence(
    run: Run, data: SimpleNamespace, tmp_path: Path
) -> None:
    marks = tmp_path / "wrong.json"
    for content, words in (
        ([987654321], "lists 1 annotations that"),
        ([], "lists no mask"),
        ({"format": "?"}, "holds no marks"),
    ):
        marks.write_text(json.dumps(content))
        said = run(data.train, "--redo", str(marks), code=1).err
        assert words in said and len(said.splitlines()) == 1
