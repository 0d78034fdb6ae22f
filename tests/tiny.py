"""A run of seconds: the whole product on a handful of small generated pictures."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

TINY = (
    "data.shapes_train=16",
    "data.shapes_val=4",
    "data.shapes_size=64",
    "data.image_size=64",
    "data.batch_size=4",
    "data.val_batch_size=3",
    "data.num_workers=0",
    "model.head_channels=8",
    "model.num_init_channels=4",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "trainer.check_val_every_n_epoch=1",
)


def environment(cache: Path) -> dict[str, str]:
    """The process's own, with a cache for generated pictures and no inherited run directory."""
    kept = {k: v for k, v in os.environ.items() if k != "DEEPMAC_RUN_DIR"}
    return {**kept, "DEEPMAC_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def train_py(*words: str) -> list[str]:
    """``python train.py WORDS``."""
    return [sys.executable, str(REPOSITORY / "train.py"), *words]


def deepmac(*words: str) -> list[str]:
    """``deepmac WORDS`` of this environment."""
    return [str(Path(sys.executable).parent / "deepmac"), *words]


def run(command: list[str], *, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end and give what was said."""
    return subprocess.run(
        command, cwd=cwd, env=environment(cache), capture_output=True, text=True, timeout=300
    )
