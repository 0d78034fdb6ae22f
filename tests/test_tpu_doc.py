"""docs/tpu.md names only settings that exist."""

import re
from pathlib import Path

from deepmac.lightning.compose import compose

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "tpu.md").read_text()
GROUPS = "trainer|data|model|callbacks|hydra|experiment|backbone|mask_head|ckpt_path"


def settings():
    """Every ``name=value`` in code; ``...`` is for the reader to fill in."""
    code = "\n".join(re.findall(r"`+([^`]+)`+", TEXT))
    found = re.findall(rf"(?<![\w.])((?:{GROUPS})(?:\.\w+)*=[^\s\\'\"]+)", code)
    return sorted({word.rstrip(",;)").replace("$HOME", "/home") for word in found})


def test_settings__exist():
    words = settings()
    assert "trainer=tpu_pod" in words and len(words) > 15
    for word in words:
        if not word.endswith(("...", "=")):
            place = [] if word.startswith("trainer=") else ["trainer=tpu"]
            compose([*place, word.split("|")[0]])


def test_callbacks_and_files__exist():
    root = Path(__file__).resolve().parent.parent
    assert "compile_watch" in compose([])[0].callbacks
    for name in re.findall(r"`((?:lightning|nn)/\w+\.py)`", TEXT):
        assert (root / "src/deepmac" / name).exists(), name
