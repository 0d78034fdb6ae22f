"""Boxes to tables, tables to masks, masks to files: the local engine's masks, bit for bit."""

import json

import pytest

from deepmac.errors import ConfigError, DataError
from deepmac.label.cluster import from_parquet, to_parquet
from deepmac.label.command import command as label_command

pytest.importorskip("pyarrow")
pytest.importorskip("ijson")


@pytest.fixture
def tables(boxes_only, tmp_path):
    out = tmp_path / "tables"
    counts = to_parquet.convert(boxes_only, str(out), group=16)
    assert counts.images == 40
    return out


@pytest.fixture
def local(model_dir, data, boxes_only, tmp_path):
    """The local engine's annotations by id."""
    out = tmp_path / "local.json"
    words = ["--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes_only),
             "--out", str(out), "--accelerator", "cpu", "--workers", "0"]  # fmt: skip
    assert label_command(words) == 0
    return {entry["id"]: entry for entry in json.loads(out.read_text())["annotations"]}


def labeller(model_dir, images, **options):
    from deepmac.label.cluster.job import work_of
    from deepmac.label.cluster.labeller import Labeller
    from deepmac.models.files import load_model

    network = load_model(str(model_dir))
    return Labeller(network, work_of(network, str(images), **options), device="cpu")


def label(model_dir, images, tables, out):
    from deepmac.label.cluster.tables import Tables, as_bytes

    source, answer = Tables(str(tables)), labeller(model_dir, images)
    out.mkdir()
    for unit in source.units():
        masks = answer(source.rows(unit))
        (out / unit.out).write_bytes(as_bytes(masks, source.about()))
    return out


def test_masks__are_the_local_engines_bit_for_bit(model_dir, data, tables, local, tmp_path):
    masks = label(model_dir, data.images, tables, tmp_path / "masks")
    counts = from_parquet.convert(str(masks), "coco", tmp_path / "back.json")
    found = json.loads((tmp_path / "back.json").read_text())["annotations"]
    assert counts.masks == len(found) == len(local) > 40
    for entry in found:
        for name in ("segmentation", "area", "mask_score", "image_id", "category_id"):
            assert entry[name] == local[entry["id"]][name]
        assert entry["bbox"] == pytest.approx(local[entry["id"]]["bbox"])


@pytest.mark.parametrize("form", ["coco-polygons", "coco-results", "yolo-seg", "yolo"])
def test_other_formats__hold_every_mask(model_dir, data, tables, tmp_path, form):
    masks = label(model_dir, data.images, tables, tmp_path / "masks")
    out = tmp_path / "out"
    counts = from_parquet.convert(str(masks), form, out)
    if form.startswith("coco"):
        content = json.loads(out.read_text())
        entries = content["annotations"] if form == "coco-polygons" else content
        assert len(entries) == counts.masks and all(e["segmentation"] for e in entries)
    else:
        lines = [line for p in (out / "labels").rglob("*.txt") for line in p.open()]
        assert len(lines) == counts.masks and (out / "data.yaml").is_file()


def test_what_cannot_be_labelled__is_a_row_that_says_why(model_dir, data, tables, tmp_path):
    from deepmac.label.cluster.tables import Tables

    source = Tables(str(tables))
    boxes = source.rows(source.units()[0]).to_pylist()
    names = list(dict.fromkeys(row["image"] for row in boxes))
    images = tmp_path / "images"
    for name in names[1:]:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes((data.images / name).read_bytes())
    (images / names[1]).write_bytes(b"\xff\xd8 no picture")
    import pyarrow as pa

    boxes[-1]["x2"] = boxes[-1]["x1"] - 5
    table = pa.Table.from_pylist(boxes)
    found = labeller(model_dir, images)(table).to_pylist()
    assert len(found) == len(boxes)
    for row in found[:-1]:
        wrong = {names[0]: "does not exist", names[1]: "cannot be decoded"}.get(row["image"])
        assert (wrong in row["error"]) if wrong else row["error"] is None
        assert (row["rle"] is None) == (row["error"] is not None)
    assert "corners swapped" in found[-1]["error"]


def test_the_fewest_columns__are_enough(model_dir, data, tables):
    from deepmac.label.cluster.tables import Tables

    source = Tables(str(tables))
    whole = source.rows(source.units()[0])
    few = whole.select(["image", "x1", "y1", "x2", "y2"])
    answer = labeller(model_dir, data.images)
    assert answer(few)["rle"].to_pylist() == answer(whole)["rle"].to_pylist()


def test_boxes_left_out__are_counted(data, tmp_path):
    counts = to_parquet.convert(data.train, str(tmp_path / "tables"))
    masks = sum(
        bool(e.get("segmentation")) for e in json.loads(data.train.read_text())["annotations"]
    )
    assert counts.left_alone == {"human mask kept": masks}


def test_mistakes__are_one_sentence(tables, data, tmp_path):
    from deepmac.label.cluster.tables import Tables

    with pytest.raises(ConfigError, match="holds tables already"):
        to_parquet.convert(data.train, str(tables))
    with pytest.raises(DataError, match="do not exist"):
        to_parquet.convert(tmp_path / "none.json", str(tmp_path / "x"))
    with pytest.raises(DataError, match="holds no Parquet table"):
        Tables(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="tables without masks"):
        from_parquet.convert(str(tables), "coco", tmp_path / "x.json")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is no Parquet table"):
        Tables(str(tmp_path / "bad.parquet")).units()
