"""Every setting with values that cannot be meant: one sentence, or what it says on the tin.

    PYTHONPATH=tests python -m e2e.settings_fuzz --seed 1 --count 400

One process, up to the point where data would be read; each answer is counted as accepted, a
sentence, a traceback or too long. Settings are those of the composed tree, callbacks included.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from tiny import TINY

VALUES = (
    *("0", "-1", "2.5", "nan", ".inf", "-.inf", "1e308", "1" + 30 * "0", "abc", "''", "null"),
    *("true", "[]", "[1,-2,x]", "{}", "{a: 1}", "'/proc/x'"),
)
LEFT_OUT = ("hydra.", "trainer.num_nodes", "trainer.profiler", "data.root")
"""Not of a run, or what reaches beyond this machine; data's own reader has tests of its own."""


def settings(values: Mapping[str, Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Dotted names of the composed tree's leaves and groups."""
    if values is None:
        from omegaconf import OmegaConf

        from deepmac.lightning.compose import compose

        values = OmegaConf.to_container(compose(())[0])
    for name, value in values.items():
        full = f"{prefix}{name}"
        if not full.startswith(LEFT_OUT):
            yield full
            if isinstance(value, Mapping):
                yield from settings(value, f"{full}.")


def answer(setting: str, value: str, run_dir: Path) -> tuple[str, str, float]:
    """``accepted``, ``sentence``, ``traceback`` or ``long``; what was said; seconds."""
    from deepmac.cli import main
    from deepmac.lightning.cli import DeepMACCLI

    os.environ.pop("DEEPMAC_RUN_DIR", None)
    base = [word for word in TINY if word.split("=")[0] != setting]
    out, err = io.StringIO(), io.StringIO()
    started = time.monotonic()
    with (
        mock.patch.object(DeepMACCLI, "_run_subcommand", lambda *_: None),
        mock.patch.object(DeepMACCLI, "evaluation", None),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(["fit", *base, f"hydra.run.dir={run_dir}", f"{setting}={value}"])
        except BaseException as error:
            code, said = 99, f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    lines = [line for line in err.getvalue().splitlines() if line.startswith("deepmac: ")]
    if code in (70, 99) or "Traceback" in err.getvalue():
        return "traceback", lines[-1] if lines else said, seconds
    if code == 0:
        return "accepted", "", seconds
    if len(lines) != 1 or len(lines[0]) > 400:
        return "long", "\n".join(lines), seconds
    return "sentence", lines[0], seconds


def main() -> int:
    """Exit code 1 where a setting got a traceback, or an answer of more than 400 characters."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=400, help="0 = every setting, every value")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    pairs = [(name, value) for name in settings() for value in VALUES]
    if arguments.count:
        pairs = random.Random(arguments.seed).sample(pairs, min(arguments.count, len(pairs)))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in pairs:
            kind, said, seconds = answer(name, value, Path(folder) / "run")
            kind = "slow" if seconds > 20 else kind
            counts[kind] += 1
            if arguments.verbose or kind not in ("accepted", "sentence"):
                print(f"{kind}: {name}={value} ({seconds:.1f} s): {said}", flush=True)
    print(f"seed {arguments.seed}, {len(pairs)} settings: {dict(counts)}")
    return 1 if counts.keys() - {"accepted", "sentence"} else 0


if __name__ == "__main__":
    sys.exit(main())
