"""The scripts in examples/ that train or predict."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from deepmac import load_model
from deepmac.cli import main
from deepmac.errors import UserError
from deepmac.models.files import write_model
from networks import tiny_card, tiny_model
from tiny import TINY

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_mask_head_on_faster_rcnn__learns_and_predicts_in_any_boxes():
    torch.manual_seed(0)
    names = runpy.run_path(str(EXAMPLES / "mask_head_on_faster_rcnn.py"))
    names["detector"].transform.min_size = (64,)  # for speed
    picture = torch.rand(3, 64, 64)
    boxes, masks = torch.tensor([[8.0, 8, 56, 40]]), torch.ones(1, 64, 64)
    masks[:, 24:] = 0
    losses = [names["training_step"]([picture], [boxes], [masks]) for _ in range(4)]
    assert losses[-1] < losses[0]
    other = torch.tensor([[0.0, 0, 30, 30], [10.0, 10, 60, 60], [5.0, 40, 25, 64]])
    assert names["mask_logits"]([picture], [other]).shape == (3, 32, 32)


@pytest.fixture
def examples_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_mask_head", None)


def test_own_mask_head__trains_and_its_checkpoint_opens(examples_folder, capfd, monkeypatch):
    words = [*TINY, "trainer.max_steps=1", "model.optimizer=torch.optim.RAdam", "hydra.run.dir=run"]
    head = "model.mask_head=own_mask_head.DilatedHead"
    assert main(["fit", *words, head]) == 0, capfd.readouterr().err
    last = "run/checkpoints/last.ckpt"
    model = load_model(last)
    assert type(model.mask_head.net.net).__name__ == "DilatedHead"
    del sys.modules["own_mask_head"]
    with pytest.raises(UserError, match=r"not imported.*DEEPMAC_EXTENSIONS=own_mask_head"):
        load_model(last)
    monkeypatch.setenv("DEEPMAC_EXTENSIONS", "own_mask_head")
    load_model(last)


def test_own_lightning_script__trains(examples_folder):
    from deepmac.data.shapes.data_set import write_shapes

    root = examples_folder / "coco"
    write_shapes(root, num_train=6, num_val=2, size=64)
    names = runpy.run_path(str(EXAMPLES / "own_lightning_script.py"))
    trainer = names["train"](str(root), max_steps=1, accelerator="cpu", logger=False)
    assert trainer.global_step == 1


def ran(monkeypatch, script, *words) -> int:
    names = runpy.run_path(str(EXAMPLES / script))
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    return names["guarded"](names["main"])


def averaged(monkeypatch, *words) -> int:
    return ran(monkeypatch, "average_weights.py", *words)


def test_join_sets__is_one_data_set_in_which_rare_kinds_come_more_often(
    tmp_path, monkeypatch, capsys
):
    from deepmac.data.shapes.data_set import write_shapes

    monkeypatch.chdir(tmp_path)
    for name, number in (("few", 2), ("many", 5)):
        write_shapes(tmp_path / name, num_train=number, num_val=2, size=64)
    few, many, out = tmp_path / "few", tmp_path / "many", tmp_path / "out"
    words = [few, many, "--out", out, "--times"]
    assert ran(monkeypatch, "join_sets.py", *words, "few=3", "nobody=2") == 1
    assert "nobody: no folder and no image's source" in capsys.readouterr().err
    assert not out.exists()
    assert ran(monkeypatch, "join_sets.py", *words, "few=3") == 0
    assert "11 images" in capsys.readouterr().out
    assert main(["check-data", "data=coco", f"data.root={out}"]) == 0, capsys.readouterr()
    checked = capsys.readouterr().out
    assert re.search(r"images +│ +11 │ +2 │", checked)


def test_join_sets__of_classes_that_share_an_id_is_refused(tmp_path, monkeypatch, capsys):
    from deepmac.data.shapes.data_set import write_shapes

    for name in ("one", "two"):
        write_shapes(tmp_path / name, num_train=1, num_val=1, size=64)
    path = tmp_path / "two/annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "another"
    path.write_text(json.dumps(content))
    words = (tmp_path / "one", tmp_path / "two", "--out", tmp_path / "out")
    assert ran(monkeypatch, "join_sets.py", *words) == 1
    assert "give one of them another id" in capsys.readouterr().err
    assert ran(monkeypatch, "join_sets.py", words[0], words[0], *words[2:]) == 1
    assert "two folders have one name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_average_weights__is_the_mean_and_what_not_every_model_has_stays(
    tmp_path, monkeypatch, capsys
):
    clicks = tiny_card(detector=False, click_head="hourglass10", click_channels=4)
    plain = tiny_card(detector=False)
    states = []
    for name, card, seed in (("a", clicks, 1), ("b", plain, 2)):
        (tmp_path / name).mkdir()
        states.append(tiny_model(card, seed).state_dict())
        write_model(tmp_path / name, states[-1], card)
    words = (tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert averaged(monkeypatch, *words) == 0
    found = load_model(tmp_path / "c").state_dict()
    assert found.keys() == states[0].keys() > states[1].keys()
    for name, value in found.items():
        own = states[0][name]
        mean = (own + states[1][name]) / 2 if name in states[1] else own
        torch.testing.assert_close(value.float(), mean.float(), rtol=1e-3, atol=1e-4)
    assert averaged(monkeypatch, *words) == 1
    assert "already exists" in capsys.readouterr().err


def test_average_weights__of_unlike_models_is_refused(tmp_path, monkeypatch, capsys):
    for name, side in (("a", 4), ("b", 8)):
        (tmp_path / name).mkdir()
        card = tiny_card(detector=False, head_channels=side)
        write_model(tmp_path / name, tiny_model(card).state_dict(), card)
    assert averaged(monkeypatch, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c") == 1
    assert "not of the same shape in all models" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
