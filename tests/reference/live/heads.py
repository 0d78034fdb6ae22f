"""The seventeen mask heads beside the original's: other seeds, sizes and rows than the fixtures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from table import (
    DTYPES,
    Answer,
    Arrays,
    Dtype,
    Pair,
    as_the_original_in_float64,
    convert_exactly,
    read,
    under,
)

from deepmac.convert import convert_variables
from deepmac.nn.conventions import TF_LATEST
from deepmac.nn.mask_heads import MASK_HEADS, MaskHead, build_mask_head


def answers(folder: Path, dtype: Dtype) -> Iterator[Answer]:
    names = [path.stem.removeprefix("head_") for path in sorted(folder.glob("head_*.npz"))]
    assert set(MASK_HEADS) <= set(names)
    for name in sorted(names, key=lambda name: name.startswith("fixture")):
        arrays = read(folder / f"head_{name}.npz")
        head = build(arrays, dtype)
        pixel = torch.from_numpy(arrays["pixel"]).permute(0, 3, 1, 2).to(DTYPES[dtype])
        instance = torch.from_numpy(arrays["instance"]).to(DTYPES[dtype])
        part = f"head {name}".replace("head fixture_", "fixture head ")
        with torch.no_grad():
            logits = head.eval()(pixel, instance)
            yield Answer(part, "logits, evaluation", [Pair(logits, arrays["logits"])])
            logits = head.train()(pixel, instance)
        yield Answer(part, "logits, training", [Pair(logits, arrays["logits_training"])])
        buffers = dict(head.named_buffers())
        if buffers:
            after = convert_exactly(under(arrays, "w::") | under(arrays, "after::"))
            yield Answer(
                part,
                "running statistics after a step",
                [Pair(value, after[key]) for key, value in buffers.items()],
                asked=(1e-6, 1e-9),
                comparable=not name.startswith("resnet"),
            )


def build(arrays: Arrays, dtype: Dtype) -> MaskHead:
    meta = json.loads(str(arrays["meta"]))
    channels = arrays["pixel"].shape[-1] + meta["joins"] * arrays["instance"].shape[-1]
    head = build_mask_head(
        meta["name"], channels, meta["width"], meta["side"], conventions=TF_LATEST
    )
    head.load_state_dict(convert_variables(under(arrays, "w::")), strict=True)
    if dtype == "float64":
        as_the_original_in_float64(head)
    return head.to(DTYPES[dtype])
