"""Exported graphs give the network's numbers, for shapes other than the traced ones too."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmac import Predictor, load_model
from deepmac.cli import main
from deepmac.errors import UserError
from deepmac.export import export_model
from deepmac.export.graphs import BoxesGraph, DetectGraph, blobs
from deepmac.export.onnx_format import OnnxRun
from deepmac.models.files import card_of
from deepmac.models.hub import save_pretrained

REPOSITORY = Path(__file__).resolve().parents[2]
BOXES = np.array([[5.0, 4.0, 40.0, 44.0], [30.5, 10.0, 75.0, 49.0], [60.0, 2.0, 62.0, 9.0]])


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def onnx_folder(model, tmp_path_factory):
    """A small model as ONNX; its parity figures are in ``exported``."""
    folder = tmp_path_factory.mktemp("onnx") / "model"
    exported = export_model(model, folder, "onnx")
    assert max(exported.differences.values()) < 1e-3
    assert not exported.notes
    return folder


@pytest.mark.parametrize(("batch", "count"), [(1, 0), (1, 1), (2, 1), (3, 7)])
@pytest.mark.parametrize("sides", [(64, 64), (48, 112)])
def test_onnx_boxes__any_number_of_pictures_and_boxes(model, onnx_folder, batch, count, sides):
    images = blobs(batch, *sides)
    corners = torch.rand(batch, count, 4, generator=torch.Generator().manual_seed(1)) * 40
    corners[..., 2:] += corners[..., :2]
    (masks,) = OnnxRun(onnx_folder / "boxes.onnx")({"images": images, "boxes": corners})
    assert masks.shape == (batch, count, 16, 16)
    with torch.no_grad():
        expected = BoxesGraph(model)(images, corners)
    np.testing.assert_allclose(masks, expected.numpy(), atol=1e-3)


def test_masks_only__is_the_boxes_graph_alone_in_a_smaller_file(model, onnx_folder, tmp_path):
    folder = save_pretrained(model, tmp_path / "whole")
    for form in ("onnx", "safetensors"):
        words = ["export", str(folder), "--masks-only", "--format", form]
        assert main([*words, "--out", str(tmp_path / form)]) == 0
    assert sorted(p.name for p in (tmp_path / "onnx").iterdir()) == ["boxes.onnx", "model.json"]
    described = json.loads((tmp_path / "onnx/model.json").read_text())
    assert list(described["graphs"]) == ["boxes.onnx"]
    inputs = {"images": blobs(1, 64, 64), "boxes": torch.tensor([[[4.0, 5, 40, 50]]])}
    (masks,) = OnnxRun(tmp_path / "onnx/boxes.onnx")(inputs)
    (expected,) = OnnxRun(onnx_folder / "boxes.onnx")(inputs)
    np.testing.assert_allclose(masks, expected, atol=1e-4)
    sizes = [(tmp_path / f / "model.safetensors").stat().st_size for f in ("whole", "safetensors")]
    assert sizes[1] < sizes[0]
    assert not load_model(tmp_path / "safetensors").detector
    assert "no detector" in (tmp_path / "safetensors/README.md").read_text()


@pytest.mark.parametrize("sides", [(64, 64), (48, 112)])
def test_onnx_detect__boxes_classes_scores_and_masks(model, onnx_folder, sides):
    images = blobs(2, *sides)
    true_sizes = torch.tensor([sides, (sides[0] - 9, sides[1] - 20)])
    found = OnnxRun(onnx_folder / "detect.onnx")({"images": images, "true_sizes": true_sizes})
    with torch.no_grad():
        expected = DetectGraph(model, card_of(model).class_map)(images, true_sizes)
    boxes, labels, scores, masks = (value.numpy() for value in expected)
    assert np.ptp(scores) > 0.01  # ranks that rounding does not swap
    np.testing.assert_allclose(found[0], boxes, atol=1e-3 * max(sides))
    np.testing.assert_array_equal(found[1], labels)
    assert set(found[1].ravel()) <= {7, 30, 31}
    np.testing.assert_allclose(found[2], scores, atol=1e-3)
    np.testing.assert_allclose(found[3], masks, atol=1e-3)


@pytest.mark.slow
def test_torch_format__loads_without_this_package(model, tmp_path):
    exported = export_model(model, tmp_path / "out", "torch")
    assert max(exported.differences.values()) < 1e-3
    code = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
assert not {"deepmac", "timm", "torchvision"} & set(sys.modules)
print(tuple(program(torch.zeros(1, 3, 32, 80), torch.zeros(1, 0, 4)).shape))
print(tuple(program(torch.zeros(2, 3, 64, 64), torch.zeros(2, 5, 4)).shape))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "out/boxes.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == ["(1, 0, 16, 16)", "(2, 5, 16, 16)"]


def test_model_json__says_how_to_feed_the_graphs(onnx_folder):
    about = json.loads((onnx_folder / "model.json").read_text())
    assert about["input"]["image_size"] == 64
    assert about["input"]["size_divisor"] == 8
    assert about["input"]["free_size"] is True
    assert about["masks"]["paste_rule"] == "roi_align"
    assert [c["id"] for c in about["classes"]] == [7, 30, 31]
    assert [c["masks_in_training"] for c in about["classes"]] == [True, False, False]
    assert about["graphs"]["boxes.onnx"]["inputs"]["boxes"]["shape"] == ["batch", "boxes", 4]


def test_example__agrees_with_the_predictor_on_numpy_and_onnxruntime_alone(
    model, onnx_folder, picture, tmp_path
):
    np.save(tmp_path / "picture.npy", picture)
    code = f"""
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "PIL", "deepmac", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, {str(REPOSITORY / "examples")!r})
import onnx_masks
onnx_masks.main()
"""
    words = [str(onnx_folder), "picture.npy", "--out", "masks.npy"]
    for box in BOXES:
        words += ["--box", *map(str, box)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    masks = np.load(tmp_path / "masks.npy")
    predictor = Predictor(model)
    predictor.set_image(picture)
    expected, _ = predictor.predict(BOXES)
    assert masks.shape == expected.shape == (3, 50, 75)
    assert expected.any(axis=(1, 2)).all()
    assert (masks != expected).mean() < 2e-3  # pixels on the line of 0.5


def test_example__detects_what_the_predictor_detects(model, onnx_folder, picture, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "examples")
    import onnx_masks

    boxes, labels, scores, masks = onnx_masks.OnnxModel(onnx_folder).detect(picture, 0.0)
    predictor = Predictor(model)
    predictor.set_image(picture)
    expected = predictor.detect()
    np.testing.assert_allclose(scores, expected.scores, atol=5e-3)
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.5)
    assert (masks != expected.masks).mean() < 5e-3


def test_example__resizes_as_the_training_does(picture, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "examples")
    import onnx_masks

    from deepmac.data.original.resize import legacy_resize_bilinear
    from deepmac.predict.letterbox import letterbox

    for size in (33, 64, 200):
        entry = letterbox(picture, size)
        height, width = entry.true_size
        ours = onnx_masks.resize_antialiased(picture, height, width)
        theirs = entry.image[0, :, :height, :width].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() <= 1
        np.testing.assert_allclose(
            onnx_masks.resize_tensorflow1(picture, height, width),
            legacy_resize_bilinear(picture, height, width),
            atol=1e-3,
        )


@pytest.mark.parametrize("scale", [1.0, 1.3])
@pytest.mark.parametrize("rule", ["roi_align", "corner_aligned"])
def test_example__pastes_as_the_package_does(monkeypatch, rule, scale):
    monkeypatch.syspath_prepend(REPOSITORY / "examples")
    import onnx_masks

    from deepmac.nn.deepmarc.roi_heads import grow_boxes
    from deepmac.predict.paste import paste_masks

    crops = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(2)).numpy()
    boxes = np.array([[5.3, 4, 40, 44], [-9, -3, 80, 55], [60, 2, 60.4, 9], [7, 7, 7, 7]], float)
    model = onnx_masks.OnnxModel.__new__(onnx_masks.OnnxModel)
    model.about = {"masks": {"paste_rule": rule, "frame_scale": scale, "threshold": 0.5}}
    frames = grow_boxes(torch.from_numpy(boxes), scale).numpy()
    expected = paste_masks(crops, frames, 50, 75, 0.5, rule)
    np.testing.assert_array_equal(model._paste(crops, boxes, (50, 75, 3)), expected)


def test_safetensors_format__is_a_folder_that_load_model_takes(model, tmp_path, capsys):
    assert export_model(model, tmp_path / "first", "safetensors").folder == tmp_path / "first"
    again = load_model(tmp_path / "first")
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    words = [str(tmp_path / "first"), "--format", "safetensors", "--out", str(tmp_path / "second")]
    assert main(["export", *words]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    assert card_of(load_model(tmp_path / "second")) == card_of(model)


def test_command__says_what_is_wrong_in_one_sentence(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "text.safetensors").write_text("hello")
    for words, said in (
        ([str(tmp_path / "none"), "--out", str(tmp_path / "x")], "no model"),
        ([str(tmp_path / "text.safetensors"), "--out", str(tmp_path / "x")], "cannot be read"),
    ):
        assert main(["export", *words]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert not (tmp_path / "x").exists()


def test_export__refuses_a_full_folder_and_leaves_it_alone(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="already exists"):
        export_model(model, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_export__writes_nothing_where_a_graph_is_wrong(model, tmp_path, monkeypatch):
    import deepmac.export.export as module

    monkeypatch.setattr(module, "traced", lambda graph: None)
    monkeypatch.setattr(module, "write_torch", lambda program, path: path.touch())
    monkeypatch.setattr(module, "TorchRun", lambda path: None)
    for difference in (0.5, float("nan")):
        monkeypatch.setattr(module, "largest_difference", lambda graph, run, d=difference: d)
        with pytest.raises(UserError, match="differs from the network"):
            export_model(model, tmp_path / "out", "torch")
        assert not any(tmp_path.iterdir())


def test_export__falls_back_to_a_fixed_size_and_says_so(model, tmp_path, monkeypatch):
    import deepmac.export.export as module

    def refuses_free_sides(graph):
        if 2 in graph.free["images"]:
            raise ValueError("sides are not free")

    monkeypatch.setattr(module, "traced", refuses_free_sides)
    monkeypatch.setattr(module, "write_torch", lambda program, path: path.touch())
    monkeypatch.setattr(module, "TorchRun", lambda path: None)
    monkeypatch.setattr(module, "largest_difference", lambda graph, run: 0.0)
    exported = export_model(model, tmp_path / "out", "torch")
    assert len(exported.notes) == 2
    assert "boxes.pt2 takes pictures of 64 x 64 alone" in exported.notes[1]
    assert "sides are not free" in exported.notes[1]
    about = json.loads((tmp_path / "out/model.json").read_text())
    assert about["input"]["free_size"] is False
    assert about["graphs"]["boxes.pt2"]["inputs"]["images"]["shape"] == ["batch", 3, 64, 64]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "ends_fixed"),
    [
        ({"backbone": "tf_efficientnet_lite0", "pyramid_width": 16}, False),
        ({"mask_head": "hourglass20", "mask_size": 32, "use_xy": False}, False),
        (
            {"mask_head": "cond_inst2", "dim": 33, "use_instance_embedding": False},
            False,
        ),
        # Its mask head sees the whole map, whose sides the tracer takes for constants.
        ({"predict_full_resolution_masks": True, "postprocess_crop_size": 24}, True),
        ({"compat": "tf_release"}, False),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_onnx__networks_of_every_kind(make_model, tmp_path, changes, ends_fixed):
    exported = export_model(make_model(**changes), tmp_path / "out", "onnx")
    assert max(exported.differences.values()) < 1e-3
    assert bool(exported.notes) is ends_fixed
    about = json.loads((tmp_path / "out/model.json").read_text())
    assert about["input"]["free_size"] is not ends_fixed


@pytest.mark.slow
def test_onnx__of_a_fixed_size(make_model, tmp_path):
    model = make_model(backbone="resnet18", pyramid_width=16, mask_head="resnet4")
    exported = export_model(model, tmp_path / "out", "onnx", fixed_size=True)
    assert max(exported.differences.values()) < 1e-3
    assert not exported.notes
    (masks,) = OnnxRun(tmp_path / "out/boxes.onnx")(
        {"images": blobs(3, 64, 64), "boxes": torch.tensor([[[3.0, 4, 30, 40]]]).expand(3, 1, 4)}
    )
    assert masks.shape == (3, 1, 16, 16)
