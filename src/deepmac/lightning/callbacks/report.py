"""``report.html`` of a run directory: what was run, its curves, classes, and telling masks."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deepmac import __version__
from deepmac.files import write_atomically
from deepmac.lightning.callbacks.cases import Cases
from deepmac.report.page import write_page
from deepmac.report.run_folder import ABOUT, CASES, read_run


class RunReport(Callback):
    """Rewrites the page after every evaluation and at the end; the first replica does."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._earlier = 0.0
        self._cases = Cases()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when it began; a resumed run adds to the time of the one before."""
        self._since = time.monotonic()
        if trainer.ckpt_path and trainer.is_global_zero:
            try:
                before = json.loads((Path(trainer.default_root_dir) / ABOUT).read_text("utf-8"))
                self._earlier = max(0.0, float(before["seconds"]))
            except (OSError, ValueError, KeyError, TypeError):
                self._earlier = 0.0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last evaluation's masks."""
        self._cases = Cases()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look for the worst and best masks; under many processes, of the first one's images."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            index = trainer.datamodule.val_index  # type: ignore[attr-defined]
            for result in outputs["results"]:
                self._cases.add(index.image(result["image_id"]), result["gt_box_masks"] or {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known now."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        drawn = self._cases.draw(pl_module.class_map)  # type: ignore[arg-type]
        write_atomically(folder / CASES, json.dumps(drawn) + "\n")
        self._write(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last rows and the whole duration."""
        if trainer.is_global_zero:
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        if self._since is not None:
            seconds = self._earlier + time.monotonic() - self._since
            told = {"seconds": round(seconds, 1), **about(trainer, pl_module, seconds)}
            write_atomically(folder / ABOUT, json.dumps(told, indent=1) + "\n")
        if any((folder / name).is_file() for name in ("metrics.csv", "metrics.json")):
            write_page([read_run(folder)], folder / "report.html")


def about(trainer: pl.Trainer, module: pl.LightningModule, seconds: float) -> dict[str, Any]:
    """A title, and lines of name and text about a run, for people."""
    program = Path(sys.argv[0]).name
    words = ["deepmac" if program == "__main__.py" else program, *sys.argv[1:]]
    chosen = [w.removeprefix("experiment=") for w in words if w.startswith("experiment=")]
    lines = {
        "experiment": chosen[-1] if chosen else "none",
        "command": shlex.join(words)[:2000],
        "commit": _commit(),
        "model": _model(module),
        "data": _data(trainer),
        "hardware": _hardware(trainer),
        "duration": _duration(seconds),
    }
    folder = Path(trainer.default_root_dir).resolve()
    title = f"{chosen[-1]}: {folder.name}" if chosen else folder.name
    return {"title": title, "lines": {name: text for name, text in lines.items() if text}}


def _commit() -> str:
    """Of the source tree, where it is one; the version."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=here, capture_output=True, timeout=10,
        ).returncode == 0  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        found, tracked = "", False
    return f"{found} (deepmac {__version__})" if found and tracked else f"deepmac {__version__}"


def _model(module: pl.LightningModule) -> str:
    settings = dict(module.hparams)
    parts = [str(settings[key]) for key in ("backbone", "mask_head") if settings.get(key)]
    count = sum(parameter.numel() for parameter in module.parameters())
    return ", ".join([type(module).__name__, *parts, f"{count / 1e6:.1f} million parameters"])


def _data(trainer: pl.Trainer) -> str:
    data: Any = getattr(trainer, "datamodule", None)
    parts = []
    for which in ("train", "val"):
        index = getattr(data, f"{which}_index", None)
        if index is not None:
            parts.append(f"{len(index.images):,} images in {Path(index.json_path).name}")
    return "; ".join(parts)


def _hardware(trainer: pl.Trainer) -> str:
    kind = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    if kind == "CUDA":
        kind = torch.cuda.get_device_name(trainer.strategy.root_device)
    devices = f"{trainer.world_size} x {kind}" if trainer.world_size > 1 else kind
    return f"{devices}, precision {trainer.precision}, torch {torch.__version__}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
