"""A training on XLA through train.py: static, quiet, and equal to the same one on the CPU."""

import json
from itertools import pairwise

import pytest
import torch

from deepmac.data.sampler import EpochBatchSampler
from deepmac.data.shapes.data_set import ensure_shapes

IMAGES, BATCH, STEPS = 40, 4, 20
SAME = (
    # A tiny network with batch norms doubles any rounding from step to step (two CPU runs in
    # different memory formats part as far at higher rates).
    "model.lr=2e-5",
    "model.warmup_start_lr=2e-5",
    "model.adam_epsilon=1e-3",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.gradient_clip_val=5.0",
    "+callbacks.each.class_path=pytorch_lightning.callbacks.ModelCheckpoint",
    "+callbacks.each.init_args.dirpath=checkpoints",
    "+callbacks.each.init_args.save_top_k=-1",
    '+callbacks.each.init_args.filename="{epoch}"',
)
ON_XLA = ("trainer=tpu", "trainer.precision=32-true")
ON_CPU = ("trainer=cpu", "model.crop_impl=separable")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of the generated set, those of the first batch and some others without objects."""
    root = ensure_shapes(
        tmp_path_factory.mktemp("data") / "shapes", num_train=IMAGES, num_val=7, size=64
    )
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    order = EpochBatchSampler(IMAGES, BATCH, seed=0, shuffle=True, drop_last=True)
    first = [image for _, image, *_ in next(iter(order))]
    ids = [image["id"] for image in content["images"]]
    bare = {ids[place] for place in first} | set(ids[::7])
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in bare]
    path.write_text(json.dumps(content))
    return ("data.source=coco", f"data.root={root}")


@pytest.fixture(scope="module")
def on_xla(run, data):
    return run("on_xla", "fit", *data, *SAME, *ON_XLA).finish()


@pytest.fixture(scope="module")
def on_cpu(run, data):
    return run("on_cpu", "fit", *data, *SAME, *ON_CPU, "callbacks.probe=null").finish()


def assert_equal_losses(left, right, first=0):
    assert [step for step in left if step >= first] == [step for step in right if step >= first]
    for step, value in left.items():
        if step >= first:
            assert value == pytest.approx(right[step], rel=1e-4), step


def test_training__never_leaves_the_device_after_its_second_step(on_xla):
    noted = on_xla.noted("train")
    assert [line["step"] for line in noted] == list(range(1, STEPS + 1))
    assert noted[1]["fallbacks"] == noted[-1]["fallbacks"]


def test_training__compiles_nothing_after_its_second_step(on_xla):
    """Batches hold from no object to the most that there are."""
    noted = on_xla.noted("train")
    assert len({line["compiles"] for line in noted[1:]}) == 1


def test_training__reads_from_the_device_only_when_it_logs(on_xla):
    noted = on_xla.noted("train")
    for before, line in pairwise(noted[2:]):
        if line["epoch"] == before["epoch"]:
            read = line["to_host"] - before["to_host"]
            assert read == (2 if line["step"] % 2 == 0 else 0), line


def test_validation__is_one_graph_and_stays_on_the_device(on_xla):
    noted = on_xla.noted("sanity", "validate")
    assert [line["images"] for line in noted] == [3] * (1 + 3 + 3)  # 7 images in threes, twice
    later = on_xla.noted("validate")
    assert len({line["compiles"] for line in later}) == 1
    assert later[0]["fallbacks"] == later[-1]["fallbacks"] == on_xla.noted("train")[1]["fallbacks"]


def test_losses__are_those_of_a_cpu(on_xla, on_cpu):
    losses = on_xla.losses()
    assert_equal_losses(losses, on_cpu.losses())
    assert len(losses) == STEPS // 2 and losses[STEPS - 1] < losses[3]


def test_metrics__count_every_image_once_and_are_those_of_a_cpu(on_xla, on_cpu):
    ours, theirs = (json.loads((r.folder / "metrics.json").read_text()) for r in (on_xla, on_cpu))
    assert ours["images"] == theirs["images"] == 7
    for group in ("all", "seen", "unseen"):
        mean = ours["mask_gt_box"]["mIoU"][group]
        assert mean == pytest.approx(theirs["mask_gt_box"]["mIoU"][group], abs=0.01)


def test_checkpoint__is_plain_and_goes_on_on_a_cpu(run, data, on_xla, on_cpu):
    path = on_xla.folder / "checkpoints/epoch=0.ckpt"
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert {value.dtype for value in content["state_dict"].values()} == {torch.float32}
    words = (*data, *SAME, *ON_CPU, "callbacks.probe=null", f'ckpt_path="{path}"')
    resumed = run("from_xla", "fit", *words).finish()
    assert_equal_losses(resumed.losses(), on_cpu.losses(), first=STEPS // 2)
    assert max(resumed.losses()) == STEPS - 1


def test_checkpoint__of_a_cpu_goes_on_on_xla(run, data, on_cpu):
    path = on_cpu.folder / "checkpoints/epoch=0.ckpt"
    words = (*data, *SAME, *ON_XLA, "callbacks.progress=null", f'ckpt_path="{path}"')
    resumed = run("from_cpu", "fit", *words).finish()
    assert_equal_losses(resumed.losses(), on_cpu.losses(), first=STEPS // 2)
    noted = resumed.noted("train")
    assert noted[1]["fallbacks"] == noted[-1]["fallbacks"]
    assert len({line["compiles"] for line in noted[1:]}) == 1


def test_predict__is_one_graph_and_gives_the_masks_of_a_cpu(run, data, on_xla):
    words = (*data, f'ckpt_path="{on_xla.folder}/checkpoints/last.ckpt"', "model.min_score=0")
    found = {}
    for name, where in (("predict_xla", ON_XLA), ("predict_cpu", ON_CPU)):
        probe = () if name == "predict_xla" else ("callbacks.probe=null",)
        done = run(name, "predict", *words, *where, *probe).finish()
        found[name] = json.loads((done.folder / "predictions.json").read_text())
        if name == "predict_xla":
            noted = done.noted("predict")
            assert [line["images"] for line in noted] == [3, 3, 3]
            assert len({line["compiles"] for line in noted}) == 1
            assert noted[0]["fallbacks"] == noted[-1]["fallbacks"]
    ours, theirs = found["predict_xla"], found["predict_cpu"]
    assert len(ours) == len(theirs) == 7 * 4
    for left, right in zip(ours, theirs, strict=True):
        assert left["image_id"] == right["image_id"]
        assert left["score"] == pytest.approx(right["score"], rel=1e-3)


def test_loss_that_is_not_finite__stops_with_image_ids_and_keeps_the_last_good_checkpoint(
    run, data
):
    words = (*data, *ON_XLA, "model.lr=2e9", "model.warmup_start_lr=2e9")
    stopped = run("not_finite", "fit", *words, "trainer.max_epochs=2").finish(code=1)
    assert "the loss is not finite at step" in stopped.said and "on images " in stopped.said
    assert "Traceback" not in stopped.said
    assert not (stopped.folder / "checkpoints/last.ckpt").exists()
