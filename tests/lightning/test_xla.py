"""What can be said about XLA without it: refusals, and reports of steps. More in tests/tpu."""

import ast
import importlib.util
import subprocess

import pytest
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import EMAWeightAveraging

from deepmac.data.collate import collate
from deepmac.errors import ConfigError
from deepmac.lightning.xla import strategies as tpu
from deepmac.lightning.xla.step_report import StepReport
from deepmac.lightning.xla.step_watch import refuse_on_xla
from tiny import REPOSITORY, TINY, environment, train_py

OURS = "deepmac.lightning.xla.strategies.XLADevices"


class Trainer:
    def __init__(self, *callbacks):
        self.callbacks = list(callbacks)


def settings(**changes):
    return Namespace(accelerator=Namespace(class_path=OURS), precision="bf16-mixed", **changes)


@pytest.fixture
def xla_host(monkeypatch):
    monkeypatch.setattr(tpu.xla, "installed", lambda: True)
    monkeypatch.setattr(tpu.xla, "device_count", lambda: 4)


def test_torch_xla__is_imported_by_one_file_alone():
    found = set()
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "torch_xla" for name in names):
                found.add(path.name)
    assert found == {"device.py"}


def test_trainer_tpu__without_torch_xla_is_one_sentence(tmp_path):
    if importlib.util.find_spec("torch_xla"):
        pytest.skip("torch_xla is installed here")
    words = [word for word in TINY if "accelerator" not in word]
    done = subprocess.run(
        train_py(*words, "trainer=tpu", f"hydra.run.dir={tmp_path}"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "deepmac: trainer=tpu needs torch_xla" in done.stderr


def test_trainer_tpu__on_a_machine_without_one_is_one_sentence(monkeypatch):
    monkeypatch.setattr(tpu.xla, "installed", lambda: True)
    monkeypatch.setattr(tpu.xla, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="no TPU"):
        tpu.take_precision(settings())


def test_precision__mixed_becomes_a_plugin_of_ours(xla_host):
    trainer = settings(plugins=None)
    tpu.take_precision(trainer)
    assert trainer.precision is None
    assert [p.class_path for p in trainer.plugins] == [
        "deepmac.lightning.xla.strategies.XLAMixedPrecision"
    ]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "16-mixed", "64-true"])
def test_precision__that_would_ruin_coordinates_is_refused(xla_host, precision):
    trainer = settings()
    trainer.precision = precision
    with pytest.raises(ConfigError, match="bf16-mixed or 32-true"):
        tpu.take_precision(trainer)


def test_accelerator__named_tpu_points_to_ours():
    with pytest.raises(ConfigError, match="use trainer=tpu"):
        tpu.take_precision(Namespace(accelerator="tpu"))


@pytest.mark.parametrize(("devices", "parsed"), [(1, 1), (4, 4), ("4", 4), ([2], [2])])
def test_devices__are_one_all_or_an_index(xla_host, devices, parsed):
    assert tpu.XLADevices.parse_devices(devices) == parsed


@pytest.mark.parametrize("devices", [2, "x", [4], [0, 1]])
def test_devices__of_another_number_are_refused(xla_host, devices):
    with pytest.raises(ConfigError, match="all 4 devices"):
        tpu.XLADevices.parse_devices(devices)


@pytest.mark.parametrize(
    ("callbacks", "model", "words"),
    [
        ([EMAWeightAveraging()], {}, "EMAWeightAveraging"),
        ([], {"compile": True}, "model.compile"),
        ([], {"crop_impl": "torchvision"}, "model.crop_impl"),
        ([], {"checkpoint_activations": True, "backbone": "resnet50"}, "checkpoint_activations"),
    ],
)
def test_settings__that_xla_cannot_follow_are_refused(callbacks, model, words):
    allowed = {"compile": False, "crop_impl": "auto", "checkpoint_activations": False}
    with pytest.raises(ConfigError, match=words):
        refuse_on_xla(Trainer(*callbacks), {**allowed, **model})


def report_of(values, replicas=1, others=None):
    """Steps with these losses; ``others`` are sums that further replicas add."""
    report = StepReport(replicas, lambda summed: summed + torch.tensor(others))
    for step, value in enumerate(values):
        loss = torch.tensor(value)
        report.add({"loss": loss, "mask": loss / 2}, torch.tensor([step, 10 + step]), stop=False)
    return report.read(*report.tensors())


def test_step_report__gives_the_last_losses():
    look = report_of([3.0, 2.0, 1.0])
    assert look.losses == {"loss": 1.0, "mask": 0.5}
    assert not look.any_bad and look.bad_images == [] and not look.stop


def test_step_report__remembers_the_first_bad_step():
    look = report_of([3.0, float("inf"), float("nan"), 1.0])
    assert look.any_bad and look.bad_images == [1, 11] and look.steps_ago == 2
    assert look.bad_losses == {"loss": float("inf"), "mask": float("inf")}


def test_step_report__hears_of_another_replicas_bad_step_and_wish_to_stop():
    look = report_of([3.0], replicas=2, others=[5.0, 4.0, 1.0, 1.0])
    assert look.losses == {"loss": 4.0, "mask": 2.75}
    assert look.any_bad and look.bad_images == [] and look.stop


def sample(objects, image_id):
    return {
        "images": torch.zeros(3, 8, 8, dtype=torch.uint8),
        "ignore": torch.zeros(2, 2, dtype=torch.bool),
        "true_sizes": torch.tensor([8, 8]),
        "image_ids": torch.tensor(image_id),
        "geometry": torch.eye(3)[:2],
        "original_sizes": torch.tensor([8, 8]),
        "boxes": torch.zeros(objects, 4),
        "labels": torch.zeros(objects, dtype=torch.int64),
        "valid": torch.ones(objects, dtype=torch.bool),
        "mask_valid": torch.zeros(objects, dtype=torch.bool),
        "mask_boxes": torch.zeros(objects, 4),
        "mask_targets": torch.zeros(objects, 4, 4),
        "annotation_ids": torch.arange(objects),
    }


def test_collate__fills_the_last_batch_up_to_its_usual_shape():
    full = collate([sample(n, n) for n in (2, 0, 1)], max_boxes=5, batch_size=3)
    last = collate([sample(3, 7)], max_boxes=5, batch_size=3)
    assert {k: v.shape for k, v in full.items()} == {k: v.shape for k, v in last.items()}
    assert full["filler"].tolist() == [False] * 3
    assert last["filler"].tolist() == [False, True, True]
    assert last["image_ids"].tolist() == [7, 7, 7]
