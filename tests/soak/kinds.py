"""What is damaged, and what reads it: every file and every request that a command takes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from data.annotations import exports
from deepmac.cli import main
from deepmac.data.annotations.pictures import walk_files
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.settings import read_annotations
from deepmac.data.shapes.data_set import write_shapes
from deepmac.errors import UserError
from soak.inputs import WRONG, Kind
from soak.tools import published, study_runs
from soak.trainings import TRAIN, half_file, undisturbed
from soak.world import World

_FOLDERS = ("png", "yolo-seg", "yolo", "labelme")
_BOXES = (
    *("coco", "coco-polygons", "coco-results", "labelstudio", *_FOLDERS, "coco --review"),
    *("coco --on-error=skip", "yolo-seg --on-error=skip", "png --on-error=skip", "coco --tiles"),
)


def label(world: World, place: Path, option: str, **given: Path) -> int:
    """``deepmac label`` on what lies there, and its output read back."""
    format, *more = option.split()
    out = place / ("written" if format in _FOLDERS else "written.json")
    paths = {"model": world.model, "images": world.pictures, "boxes": world.boxes, **given}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    if "--review" in more:
        more = ["--review", str(place / "review.html")]
    words += ["--out", str(out), "--format", format, "--workers=0", *more]
    code = main(["label", *words])
    return WRONG if code in (0, 3) and not _reads_back(format, out, paths["images"]) else code


def _reads_back(format: str, out: Path, images: Path) -> bool:
    """JSON that knows no NaN; for what we write, our own reader finds nothing to complain of."""
    if why := half_file(out.parent, images):
        print(f"half: {why}")
        return False
    for path in [out] if out.is_file() else sorted(out.rglob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except ValueError as error:
            print(f"{path.name} is no JSON: {error}")
            return False
    written = "*.txt" if format.startswith("yolo") else "[!r]*.json"  # not the report
    if format in ("yolo-seg", "yolo", "labelme") and any(out.rglob(written)):
        own = out / "images"
        if own.is_dir() and not walk_files(own):
            return True  # no picture was there, which was told
        boxes = out / "labels" if (out / "labels").is_dir() else out
        found = read_boxes(boxes, own if own.is_dir() else images)
        # A picture that is not there was told, and left out, when the masks were made.
        doubts = (p for p in found.problems if not p.is_note)
        problems = [p.message for p in doubts if "has no picture" not in p.message]
        for problem in problems:
            print(f"read back: {problem}")
        return not problems
    return True


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}")


def _box_file(world: World, place: Path) -> None:
    content = json.loads(world.boxes.read_text())
    content["images"] = content["images"][:2]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept][:4]
    x, y, w, h = content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    (place / "in.json").write_text(json.dumps(content))


def _checkpoint(world: World, place: Path) -> None:
    whole, _ = undisturbed(world)
    shutil.copy(whole / "checkpoints/last.ckpt", place / "model.ckpt")


def _model(world: World, place: Path) -> None:
    shutil.copytree(world.model, place / "model")
    write_shapes(world.root / "held_out", num_train=1, num_val=24, size=64)
    words = ["--model", str(place / "model"), "--workers=0"]
    words += ["--images", str(world.root / "held_out/images")]
    held_out = world.root / "held_out/annotations/instances_val.json"
    assert main(["label", *words, "--calibrate", str(held_out)]) == 0


def _pictures(world: World, place: Path) -> None:
    """One of each kind of file that is read."""
    folder = place / "images"
    folder.mkdir()
    rgb = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    deep = (rgb[..., 0].astype(np.uint16) << 8) + 3
    Image.fromarray(rgb).save(folder / "a.jpg", exif=_turned())
    Image.fromarray(rgb).save(folder / "b.png")
    Image.fromarray(deep).save(folder / "c.png")
    Image.fromarray(deep).save(folder / "d.tif")
    Image.fromarray(rgb).save(folder / "e.tif", compression="tiff_lzw")
    Image.fromarray(rgb).quantize(16).save(folder / "f.gif")
    for suffix in ("bmp", "webp"):
        Image.fromarray(rgb).save(folder / f"g.{suffix}")
    names = sorted(path.name for path in folder.iterdir())
    images = [{"id": n, "file_name": name} for n, name in enumerate(names, 1)]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20], "iscrowd": 0}
        for n in range(1, len(names) + 1)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (place / "in.json").write_text(json.dumps(content))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


def _label_pictures(world: World, place: Path, option: str) -> int:
    return label(world, place, option, images=place / "images", boxes=place / "in.json")


def _read_export(name: str, world: World, place: Path, option: str) -> int:
    if option:
        code = main(["check-data", f"data.root={place}", f"hydra.run.dir={place / '.check'}"])
        # The table comes with a picture, or where no set can be used with the list of problems.
        told = any(
            (place / ".check" / name).is_file() for name in ("check_data.png", "problems.tsv")
        )
        return 0 if code == 1 and told else code
    for split in ("train", "val"):
        try:
            index = read_annotations({"root": place, "on_error": "drop"}, split)
        except UserError as error:  # what a command ends with
            print(f"deepmac: {error}")
            return 1
        for line in [*index.dropped_summary(), *(p.message for p in index.problems)]:
            if "\n" in line or len(line) > 3000:
                print(f"a message of many lines: {line[:300]}")
                return WRONG
            line.encode("utf-8")
    return 0


def _job(world: World, place: Path) -> None:
    """A finished job, with its report, and marks of what is to be made anew."""
    assert label(world, place, "coco") == 0
    ids = [one["id"] for one in json.loads((place / "written.json").read_text())["annotations"]]
    marks = {"format": "deepmac-review-1", "wrong": ids[:2], "redraw": [], "accepted": ids[2:]}
    (place / "marks.json").write_text(json.dumps(marks))
    shutil.move(place / "written.json", place / "boxes.json")


def _label_again(world: World, place: Path, option: str) -> int:
    if option == "again":
        shutil.copy(place / "boxes.json", place / "written.json")
        words = ["--model", str(world.model), "--images", str(world.pictures), "--workers=0"]
        words += ["--boxes", str(world.boxes), "--out", str(place / "written.json")]
        return main(["label", *words])
    (place / "written.json.report.json").unlink(missing_ok=True)
    return label(world, place, f"coco --redo {place / 'marks.json'}", boxes=place / "boxes.json")


def _flat_settings(world: World, place: Path) -> None:
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        main(["fit", *TRAIN, "--print_config"])
    (place / "run.yaml").write_text(text.getvalue())


def _fit_flat(world: World, place: Path, option: str) -> int:
    """Up to the first step; the run directory is ours whatever the file says."""
    import os

    os.environ["DEEPMAC_RUN_DIR"] = str(place / "run")
    words = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]
    return main(["fit", "--config", str(place / "run.yaml"), *words])


def _stopped(world: World, place: Path) -> None:
    whole, _ = undisturbed(world)
    shutil.copytree(whole, place / "run")


def _resume(world: World, place: Path, option: str) -> int:
    more = ("trainer.max_epochs=3",) if option else ()
    words = [word for word in TRAIN if not (more and word.startswith("trainer.max_epochs"))]
    return main(["fit", *words, *more, f"hydra.run.dir={place / 'run'}", "ckpt_path=last"])


def _runs(world: World, place: Path) -> None:
    shutil.copytree(study_runs(world), place / "runs")
    whole, _ = undisturbed(world)
    shutil.copytree(whole, place / "run", ignore=shutil.ignore_patterns("checkpoints"))


def _report(world: World, place: Path, option: str) -> int:
    if option == "study":
        return main(["study", str(place / "runs")])
    out = str(place / ".page.html")
    return main(["report", str(place / "run"), str(place / "runs/resnet4"), "--out", out])


def _published(world: World, place: Path) -> None:
    shutil.copytree(published(world), place / "published")
    items = "".join(f"item {{ id: {n} name: 'n{n}' display_name: 'x{n}' }}\n" for n in (1, 2, 3))
    (place / "labels.pbtxt").write_text(items)


def _convert(world: World, place: Path, option: str) -> int:
    more = ["--label-map", str(place / "labels.pbtxt")] if option else []
    return main(["convert", str(place / "published"), "--out", str(place / "out"), *more])


def _requests(world: World, place: Path) -> None:
    boxes = {"boxes": [[5, 5, 30, 30], [0, 0, 60, 40]], "threshold": 0.5, "refine": "none"}
    rle = {"size": [40, 60], "counts": "0h10P100000"}
    masks = {"file_name": "a.jpg", "width": 60, "height": 40, "labels": ["a"], "segmentations": [
        [[1, 1, 20, 1, 20, 20]]]}  # fmt: skip
    bodies = {
        "masks": boxes,
        "coco.json": {**boxes, "file_name": "a.jpg", "labels": ["a", "b"]},
        "masks.png": boxes,
        "rles": {"width": 60, "height": 40, "segmentations": [rle, [[1, 1, 9, 1, 9, 9]]]},
        "downloads-masks.png": {"pictures": [masks], "classes": ["a"]},
        "downloads-masks.zip": {"pictures": [masks], "classes": ["a"]},
        "downloads-yolo.zip": {"pictures": [masks], "classes": ["a"]},
        "job-1": {"boxes": [{"id": 1, "bbox": [1, 1, 20, 20], "category_id": 1,
                             "segmentation": [[1, 1, 20, 1, 20, 20]]}]},
    }  # fmt: skip
    for name, body in bodies.items():
        (place / f"{name}.json").write_text(json.dumps(body))
    _pictures(world, place)


def _request(world: World, place: Path, option: str) -> int:
    """Send all of them to the demo's application: answers, never a failure of its own."""
    from starlette.testclient import TestClient

    from deepmac.demo.app import make_app
    from deepmac.demo.corrections import Corrections
    from deepmac.demo.pictures import Limits
    from deepmac.models.files import load_model

    corrections = None
    with Path(place / "in.json").open() as file:
        try:
            json.load(file)
            corrections = Corrections(place / "in.json", place / "images", None)
        except Exception as error:  # the command would have ended with that sentence
            if type(error).__module__ == "deepmac.errors":
                print(f"deepmac: {error}")
            elif not isinstance(error, ValueError):
                raise
    limits = Limits(upload_megabytes=1, megapixels=1, kept=3)
    app = make_app(load_model(world.model), limits=limits, corrections=corrections)
    client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    answers = {}
    for path in sorted((place / "images").iterdir()):
        answers[path.name] = client.post("/pictures", content=path.read_bytes())
    sound = (world.root / "sound" / "requests" / "images/b.png").read_bytes()
    name = client.post("/pictures", content=sound).json()["id"]
    for path in sorted(place.glob("*.json")):
        kind, _, rest = path.stem.partition("-")
        url = f"/{kind}/{rest}" if rest else f"/pictures/{name}/{path.stem}"
        if path.stem in ("rles", "job-1", "in"):
            url = {"rles": "/rles", "job-1": "/job/1", "in": "/job"}[path.stem]
        answers[path.name] = client.post(url, content=path.read_bytes())
    for told, answer in answers.items():
        if answer.status_code >= 500 and answer.status_code != 503:
            print(f"{told}: {answer.status_code}: {answer.text[:300]}")
            return WRONG
        if answer.headers["content-type"].startswith("application/json"):
            json.loads(answer.content, parse_constant=_refuse)
    return 0


def kinds() -> list[Kind]:
    """All of them, with their shares of the inputs."""
    found = [
        Kind("boxes", 24, _box_file, "*.json",
             lambda world, place, option: label(world, place, option, boxes=place / "in.json"),
             _BOXES),
        Kind("checkpoints", 8, _checkpoint, "*.ckpt",
             lambda world, place, option: label(world, place, "coco", model=place / "model.ckpt")),
        Kind("models", 8, _model, "config.yaml calibration.json model.safetensors",
             lambda world, place, option: label(world, place, "coco", model=place / "model")),
        Kind("pictures", 10, _pictures, "images/*", _label_pictures,
             ("coco", "coco --on-error=skip", "png", "coco --review")),
        Kind("jobs", 4, _job, "*.json", _label_again, ("again", "redo")),
        Kind("settings-files", 3, _flat_settings, "*.yaml", _fit_flat),
        Kind("resumes", 3, _stopped, "last.ckpt last.ckpt metrics.csv config.yaml", _resume,
             ("", "on")),
        Kind("runs", 5, _runs, "*.json *.yaml *.csv", _report, ("study", "report")),
        Kind("published", 10, _published, "*.index *.data-* *.config *.pbtxt", _convert,
             ("", "labels")),
        Kind("requests", 5, _requests, "*.json images/*", _request),
    ]  # fmt: skip
    for name, make in exports.ALL.items():
        job: Callable[[World, Path, str], int] = partial(_read_export, name)
        kind = Kind(f"export-{name}", 1, partial(_export, make), "*", job, ("", "", "", "check"))
        found.append(kind)
    return found


def _export(make: Callable[[Path], Any], world: World, place: Path) -> None:
    make(place)
    for path in place.rglob("*.yaml"):
        assert yaml.safe_load(path.read_text()) is not None
