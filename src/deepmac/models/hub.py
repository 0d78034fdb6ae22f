"""Models as folders of safetensors, on disk or on the Hugging Face Hub.

A folder holds ``model.safetensors``, ``config.yaml`` (classes, normalisation, image size, the
network's arguments) and a ``README.md``. Nothing in it is ever executed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from deepmac.errors import UserError
from deepmac.files import new_folder, refuse_existing
from deepmac.models.card import ModelCard
from deepmac.models.files import CONFIG, WEIGHTS, card_of, load_model, write_model
from deepmac.nn.network import SegmentationNetwork

_CARD_LIST = 40  # class names that the model card spells out


def save_pretrained(model: SegmentationNetwork, folder: str | Path) -> Path:
    """Write a network for :func:`from_pretrained` and ``load_model``.

    Args:
        model: from ``load_model``, a training checkpoint's as well.
        folder: folder to create.

    Returns:
        The folder.

    Raises:
        UserError: the folder exists or cannot be written, or the model has no card.
    """
    card = card_of(model)
    if card is None:
        raise UserError("this network has no card with its classes: take it from load_model")
    out = Path(folder)
    refuse_existing(out)
    with new_folder(out) as unfinished:
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        write_model(unfinished, state, card)
        (unfinished / "README.md").write_text(_readme(card), encoding="utf-8")
    return out


def from_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    device: str | torch.device = "cpu",
) -> SegmentationNetwork:
    """A network from a local folder (never asks the network), or from the Hub.

    Args:
        name_or_folder: a folder of :func:`save_pretrained`, or a repository ``owner/name``.
        revision: branch, tag or commit of the repository.
        local_files_only: take the Hub's files from the local cache or fail.
        device: where the weights go.

    Raises:
        UserError: nothing of that name, no connection, or files that are no model.
    """
    if Path(name_or_folder).exists():
        return load_model(name_or_folder, device=device)
    name = str(name_or_folder)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {name!r}, nor can a repository be called so: give a folder of "
            "save_pretrained, or owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        # Nothing else is asked for, whatever the repository holds.
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=[WEIGHTS, CONFIG],
            local_files_only=local_files_only,
        )
    except Exception as error:  # of the hub, its transport, or the cache
        raise UserError(
            f"the model {name!r} could not be had from the Hub ({_reason(error)}): check its "
            "name and your connection, or give a local folder"
        ) from error
    return load_model(folder, device=device)


def push_to_hub(
    model: SegmentationNetwork,
    repository: str,
    *,
    private: bool = False,
    message: str = "A Deep-MAC model",
) -> str:
    """Upload what :func:`save_pretrained` writes; log in with ``hf auth login`` first.

    Args:
        model: from ``load_model``.
        repository: ``owner/name``; made where it does not exist.
        private: whether a new one is private.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        UserError: the Hub refuses or cannot be reached.
    """
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory(prefix="deepmac-hub-") as place:
        folder = save_pretrained(model, Path(place) / "model")
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message
            )
        except Exception as error:
            raise UserError(
                f"{repository} could not be uploaded to the Hub ({_reason(error)}): check the "
                "name, your login (`hf auth login`) and your connection"
            ) from error
    return str(commit.commit_url)


def _readme(card: ModelCard) -> str:
    names = list(card.class_map.names)
    also = f", and {len(names)} classes that the model\ndetects by itself"
    if not card.network.get("detector", True):
        also = "; the model has no detector"
    listed = ", ".join(names[:_CARD_LIST]) + (" …" if len(names) > _CARD_LIST else "")
    side = card.image_size
    shown = f"{side} x {side}"
    if card.input_shape == "picture":
        shown = f"about as many pixels as {side} x {side}, in the picture's own shape"
    return f"""\
---
library_name: deepmac
pipeline_tag: image-segmentation
tags: [instance-segmentation, boxes-to-masks, deep-mac]
---
Boxes in, masks out: a class-agnostic mask for every box{also}.

```python
from deepmac import Predictor
from deepmac.models.hub import from_pretrained

predictor = Predictor(from_pretrained("FOLDER_OR_REPOSITORY"))
predictor.set_image(image)  # (H, W, 3) uint8 RGB
masks, scores = predictor.predict(boxes)  # (N, 4) xyxy pixels
```

Input: {shown}. Backbone: {card.network.get("backbone", "?")}. Mask
head: {card.network.get("mask_head", "?")}. Classes that had masks in training:
{len(card.class_map.masked_category_ids)} of {len(names)}. Classes: {listed}.
"""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
