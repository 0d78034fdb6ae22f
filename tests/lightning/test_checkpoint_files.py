"""Checkpoints are whole, finite and readable, or the ones before stay."""

import pytest
import torch

from deepmac.errors import UserError
from deepmac.lightning.checkpoint_files import CheckpointFiles, not_finite_part


def checkpoint(step=1, value=0.0):
    return {"state_dict": {"network.a": torch.full((4,), value)}, "global_step": step}


def test_unreadable__names_what_else_there_is(tmp_path):
    writer = CheckpointFiles()
    for name, step in (("last", 7), ("best", 5)):
        writer.save_checkpoint(checkpoint(step), tmp_path / f"{name}.ckpt")
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / ".last.ckpt.1.draft").write_bytes(whole)
    with pytest.raises(UserError, match=r"best\.ckpt of step 5: ckpt_path=.*best\.ckpt") as caught:
        writer.load_checkpoint(tmp_path / "last.ckpt")
    assert "draft" not in str(caught.value)
    (tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match="start anew"):
        writer.load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [[], {"state_dict": 5}, {"state_dict": None}, 3])
def test_foreign_content__one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="no training checkpoint"):
        CheckpointFiles().load_checkpoint(tmp_path / "last.ckpt")


def test_remote__goes_through_fsspec():
    CheckpointFiles().save_checkpoint(checkpoint(3), "memory://runs/last.ckpt")
    assert CheckpointFiles().load_checkpoint("memory://runs/last.ckpt")["global_step"] == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["state_dict", "optimizer_states", "current_model_state"])
def test_not_finite_part__finds_it_wherever_it_lies(bad, where):
    whole = checkpoint() | {
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "current_model_state": {"network.a": torch.zeros(2, dtype=torch.float16)},
        "callbacks": {"best": {"kth_value": torch.tensor(-float("inf"))}},
    }
    assert not_finite_part(whole) is None
    inner = whole[where]
    while not isinstance(inner, torch.Tensor):
        inner = inner[next(iter(inner))] if isinstance(inner, dict) else inner[0]
    inner[1] = bad
    assert not_finite_part(whole) is not None
