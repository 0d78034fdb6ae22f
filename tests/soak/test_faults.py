"""What once lost work, hung, crashed or gave a traceback, with the very inputs that did it."""

import copy
import json
import os
import signal
import struct
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepmac.cli import main
from deepmac.guard import GO_ON
from deepmac.lightning.checkpoint_files import not_finite_part
from soak.children import Bounds, call
from soak.counts import LONGEST_SENTENCE, MEMORY
from soak.settings import MEANT, answer
from soak.trainings import TRAIN, undisturbed
from soak.world import World

BOUNDS = Bounds(seconds=120.0, cpu_seconds=20.0, gigabytes=8.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("faults") / "world")


def run(world, place, *words, function=None):
    """A command in a fork within bounds: well, or one sentence."""
    place.mkdir(exist_ok=True)
    end = call(
        function or partial(main, list(map(str, words))),
        folder=place,
        log=world.root / "log",
        bounds=BOUNDS,
        environment=world.environment,
    )
    assert end.kind in ("success", "sentence"), end.text[-3000:]
    assert end.memory < MEMORY, end.memory
    assert "should not happen" not in end.text and end.code != 70, end.text[-1000:]
    return end


def sentence(end):
    said = [line for line in end.text.splitlines() if line.startswith("deepmac: ")]
    assert end.code not in (0, 70) and said, end.text[-2000:]
    assert len(said[-1].split(GO_ON)[0]) <= LONGEST_SENTENCE, said  # a command stays whole
    return said[-1]


def label(world, place, *more, **given):
    paths = {"model": world.model, "images": world.pictures, "boxes": world.boxes}
    paths |= {"out": place / "out.json"} | given
    words = [word for name, path in paths.items() for word in (f"--{name}", path)]
    return run(world, place, "label", *words, "--workers=0", *more)


@pytest.fixture
def boxes(world):
    """A box file to spoil: two pictures, some boxes."""
    content = json.loads(world.boxes.read_text())
    content["images"] = content["images"][:2]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept][:4]
    return copy.deepcopy(content)


def written(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
    return path


def spoiled_checkpoint(world, tmp_path, value):
    whole, _ = undisturbed(world)
    content = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)
    name = next(n for n, t in content["state_dict"].items() if t.is_floating_point())
    content["state_dict"][name][:] = value
    path = tmp_path / "spoiled.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("command", ["validate", "fit", "label"])
def test_network_that_is_not_finite__one_sentence(world, tmp_path, command):
    path = spoiled_checkpoint(world, tmp_path, float("nan"))
    place = tmp_path / "run"
    if command == "label":
        end = label(world, place, model=path)
    else:
        end = run(world, place, command, *TRAIN, f"ckpt_path={path}", f"hydra.run.dir={place}")
    assert "finite" in sentence(end)


def test_training_that_diverges__keeps_no_checkpoint_that_is_not_finite(world, tmp_path):
    words = [*TRAIN, "model.lr=1e6", "model.warmup_steps=0", f"hydra.run.dir={tmp_path / 'run'}"]
    end = run(world, tmp_path / "run", "fit", *words)
    if end.code:
        assert "finite" in sentence(end)
    for path in (tmp_path / "run").rglob("*.ckpt"):
        assert not_finite_part(torch.load(path, weights_only=True)) is None


def test_warmup_from_nan__is_refused(world, tmp_path):
    words = [*TRAIN, "trainer.max_steps=1", "model.warmup_start_lr=nan"]
    end = run(world, tmp_path / "run", "fit", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert "warmup_start_lr" in sentence(end)


def test_predictor__huge_boxes_are_a_sentence_or_a_mask(world, tmp_path):
    def job():
        from deepmac import Predictor
        from deepmac.errors import UserError
        from deepmac.models.files import load_model

        predictor = Predictor(load_model(world.model))
        predictor.set_image(np.zeros((48, 64, 3), dtype=np.uint8))
        for far in (1e39, 1e300, 1e19, float("inf"), float("nan"), -1e39):
            for box in ([0, 0, far, far], [far, 0, 10, 10], [0, -far, 10, 10]):
                try:
                    masks, _ = predictor.predict([box])
                    assert len(masks) == 1
                except UserError as error:
                    print(error)
        return 0

    assert run(world, tmp_path / "p", function=job).code == 0


def with_masks(content, **size):
    content["images"][0] |= size
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    return content


@pytest.mark.parametrize("format", ["coco", "png", "yolo-seg"])
@pytest.mark.parametrize("size", [{"height": 2147483648}, {"height": 30000, "width": 30000},
                                  {"width": 10**30}])  # fmt: skip
def test_declared_size__is_compared_with_the_picture(world, tmp_path, boxes, format, size):
    path = written(tmp_path, with_masks(boxes, **size))
    out = tmp_path / ("out.json" if format in ("coco", "labelstudio") else "out")
    sentence(label(world, tmp_path / "run", "--format", format, boxes=path, out=out))
    assert not out.exists()


def test_declared_size__that_is_none_is_the_pictures(world, tmp_path, boxes):
    path, out = written(tmp_path, with_masks(boxes, width=-5)), tmp_path / "out"
    assert label(world, tmp_path / "run", "--format=png", boxes=path, out=out).code in (0, 3)
    for mask in out.rglob("*.png"):
        assert Image.open(mask).size == (64, 64)


@pytest.mark.parametrize("box", [[0, 0, 50, 1e9], [0, 0, 50, 1e19], [1e300, 0, 1, 1], [0] * 3])
def test_review__of_boxes_far_beyond_the_picture(world, tmp_path, boxes, box):
    boxes["annotations"][0]["bbox"] = box
    page = ["--review", tmp_path / "review.html"]
    label(world, tmp_path / "run", *page, boxes=written(tmp_path, boxes))


def png(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["fifo", "bomb", "long name", "no name", "tiff", "eps"])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_picture__that_is_none_or_too_large(world, tmp_path, boxes, kind, on_error):
    folder = tmp_path / "images"
    folder.mkdir()
    for image in boxes["images"]:
        name = image["file_name"]
        (folder / name).write_bytes((world.pictures / name).read_bytes())
    path = folder / "bad.png"
    image = boxes["images"][0]
    image["file_name"] = path.name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "bomb":
        path.write_bytes(png(89478485, 1))
        image |= {"width": 89478485, "height": 1}
    elif kind == "long name":
        image["file_name"] = "x" * 300
    elif kind == "no name":
        del image["file_name"]
    elif kind == "tiff":
        image |= {"file_name": "bad.tif", "width": 12000, "height": 12000}
        deep = Image.fromarray(np.zeros((12000, 12000), dtype=np.uint16))
        deep.save(folder / "bad.tif", compression="tiff_deflate")
    else:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(x) run\n")
    end = label(world, tmp_path / "run", f"--on-error={on_error}", images=folder,
                boxes=written(tmp_path, boxes))  # fmt: skip
    assert end.code in ((1, 3) if on_error == "skip" else (1,)) or kind == "tiff"
    assert on_error == "stop" or kind == "no name" or (tmp_path / "run/out.json").is_file()


def change(content, where, value):
    *places, last = where
    for place in places:
        content = content[place]
    content[last] = value


@pytest.mark.parametrize("format", ["coco", "yolo-seg"])
@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("annotations", 0, "category_id"), 5),
        (("annotations", 0, "category_id"), {"id": [1]}),
        (("annotations", 0, "category_id"), "1"),
        (("categories", 0), 5),
        (("categories", 0), {"id": [1]}),
        (("categories", 0, "id"), "x"),
        (("categories", 0, "name"), "\ud800"),
        (("images", 0, "file_name"), "\ud800"),
        (("images", 0, "width"), 10**30),
        (("annotations", 0, "id"), 10**400),
        (("annotations", 0, "bbox"), [float("nan")] * 4),
    ],
)
def test_box_file__of_other_types(world, tmp_path, boxes, format, where, value):
    change(boxes, where, value)
    out = tmp_path / ("out.json" if format == "coco" else "out")
    review = ["--review", tmp_path / "r.html"]
    label(world, tmp_path / "run", "--format", format, *review, boxes=written(tmp_path, boxes),
          out=out)  # fmt: skip
    if out.is_file():
        json.loads(out.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "content",
    [
        {"images": [], "detections": 5, "detection_categories": {"1": "a"}},
        {"images": 5, "detection_categories": {"1": "a"}},
        {"images": [{"file": "a.jpg", "detections": 5}], "detection_categories": {"1": "a"}},
        {"images": [{"file": "a.jpg", "detections": [{"category": 10**400, "conf": 1,
                     "bbox": [0, 0, 1, 1]}]}], "detection_categories": {"1": "a"}},
    ],
)  # fmt: skip
def test_megadetector__of_other_types(world, tmp_path, content):
    label(world, tmp_path / "run", boxes=written(tmp_path, content))


NESTED = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        (NESTED + "names: *i\n", "0 .5 .5 .2 .2"),
        ("names: {.inf: a}\n", "0 .5 .5 .2 .2"),
        ("names: {0: a}\n", "0 .1 .1 .5 .1 .5 1e308"),
        ("names: {0: a}\n", "0 nan .5 .2 inf"),
        ('names: !!bool "q"\n', "0 .5 .5 .2 .2"),
        ("names: !!python/object/apply:os.abort []\n", "0 .5 .5 .2 .2"),
    ],
    ids=["nested", "inf", "1e308", "nan", "bool", "tag"],
)
@pytest.mark.parametrize("skip", [False, True])
def test_yolo__files_that_mean_harm(world, tmp_path, yaml, line, skip):
    labels = tmp_path / "yolo"
    labels.mkdir()
    (labels / "data.yaml").write_text(yaml)
    name = sorted(world.pictures.iterdir())[0].stem
    (labels / f"{name}.txt").write_text(f"0 .5 .5 .3 .3\n{line}\n")
    began = time.monotonic()
    more = ["--on-error=skip"] if skip else []
    label(world, tmp_path / "run", "--boxes-format=yolo", *more, boxes=labels)
    assert time.monotonic() - began < 100
    out = tmp_path / "run/out.json"
    if out.is_file():
        json.loads(out.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_voc__a_doctype_is_refused_in_any_encoding(world, tmp_path, encoding):
    folder = tmp_path / "voc"
    folder.mkdir()
    name = sorted(world.pictures.iterdir())[0].name
    text = (
        f'<?xml version="1.0" encoding="{encoding[:6]}"?><!DOCTYPE a [<!ENTITY b "cccc">]>'
        f"<annotation><filename>{name}</filename><object><name>&b;</name><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    (folder / "a.xml").write_bytes(text.encode(encoding))
    sentence(label(world, tmp_path / "run", "--boxes-format=voc", boxes=folder))


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"masks": NaN}', "5", '{"raw": [0.1, 0.2], "masks": [NaN, 0.5]}', '{"a": 1', ""],
)
def test_calibration__of_another_shape_is_refused_before_the_work(world, tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    sentence(label(world, tmp_path / "run", "--calibration", path))
    assert not (tmp_path / "run/out.json").exists()


@pytest.mark.parametrize("text", ["[]", "5", "", "{", '{"sha256": 5}', '{"sha256": [1]}'])
def test_report_beside_the_output__of_another_shape(world, tmp_path, text):
    assert label(world, tmp_path / "run").code == 0
    (tmp_path / "run/out.json.report.json").write_text(text)
    label(world, tmp_path / "run")


@pytest.mark.parametrize("name", ["last", "cut", "foreign", "text", "absent", "best"])
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_ckpt_path__that_is_none(world, tmp_path, name, command):
    path = tmp_path / "a.ckpt"
    whole, _ = undisturbed(world)
    if name in ("last", "best"):
        path = name
        if (name, command) == ("last", "fit"):  # nothing to go on from: a start
            return
    elif name == "cut":
        path.write_bytes((whole / "checkpoints/last.ckpt").read_bytes()[:100_000])
    elif name == "foreign":
        torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, path)
    elif name == "text":
        path.write_text("hello")
    place = tmp_path / "run"
    sentence(run(world, place, command, *TRAIN, f"ckpt_path={path}", f"hydra.run.dir={place}"))


def test_config_file__is_never_printed_back(world, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {lr: 1e-3, secret: 'do not print me'}\n" + "x: 1\n" * 500)
    end = run(world, tmp_path / "run", "fit", f"--config={path}")
    assert "do not print me" not in end.text
    sentence(end)


SETTINGS = [(name, value) for name, values in MEANT.items() for value in values]


@pytest.mark.parametrize(("name", "value"), SETTINGS[::12], ids=lambda v: str(v)[:40])
def test_setting__that_cannot_be_meant(world, name, value):
    end = answer(world, name, value)
    assert end.kind in ("success", "sentence"), end.text[-2000:]
    if end.code:
        sentence(end)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal__saves_says_how_to_go_on_and_has_its_own_status(world, tmp_path, number, status):
    place = tmp_path / "run"
    words = [w for w in TRAIN if "max_epochs" not in w]
    words += ["trainer.max_epochs=500", f"hydra.run.dir={place}"]

    def job():
        if os.fork() == 0:  # waits for the first checkpoint, then sends the signal
            while not (place / "checkpoints/last.ckpt").is_file():
                time.sleep(0.01)
            os.kill(os.getppid(), number)
            os._exit(0)
        return main(["fit", *words])

    end = run(world, place, function=job)
    assert end.code == status
    assert "ckpt_path=last" in sentence(end)


def test_killed_decode_worker__is_a_sentence(world, tmp_path):
    """As the kernel kills what takes too much memory."""
    words = [w for w in TRAIN if not w.startswith("data.num_workers")]
    words += ["data.num_workers=1", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_epochs=500"]

    def job():
        owner = os.getpid()
        if os.fork() == 0:
            while True:
                time.sleep(0.05)
                children = Path(f"/proc/{owner}/task/{owner}/children").read_text().split()
                workers = [int(pid) for pid in children if int(pid) != os.getpid()]
                if workers and (tmp_path / "run/checkpoints/last.ckpt").is_file():
                    os.kill(workers[-1], signal.SIGKILL)
                    os._exit(0)
        return main(["fit", *words])

    end = run(world, tmp_path / "run", function=job)
    assert "killed" in sentence(end)
