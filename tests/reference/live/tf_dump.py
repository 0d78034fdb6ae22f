"""What the TensorFlow original answers, for one seed: ``tf_dump.py OUT SEED DTYPE [FIXTURES]``.

Runs in the original's own environment. One ``.npz`` a case: inputs, weights, answers.
"""

from __future__ import annotations

import sys
import time
from itertools import chain
from pathlib import Path

from tf_setup import set_up

set_up(int(sys.argv[2]), sys.argv[3])

import numpy as np  # noqa: E402 - after the set-up
import tf_fixtures  # noqa: E402
import tf_heads  # noqa: E402
import tf_models  # noqa: E402
import tf_pieces  # noqa: E402


def main() -> None:
    out, seed, dtype = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    count = 0
    everything = chain(
        tf_pieces.cases(seed, dtype), tf_heads.cases(seed, dtype), tf_models.cases(seed, dtype, out)
    )
    if len(sys.argv) > 4:
        everything = chain(everything, tf_fixtures.cases(Path(sys.argv[4]), dtype))
    for name, arrays in everything:
        np.savez(out / f"{name}.npz", **arrays)
        count += 1
    print(f"the original answered {count} cases in {dtype}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
