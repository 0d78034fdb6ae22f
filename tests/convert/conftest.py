"""The writer of checkpoints as a fixture."""

from __future__ import annotations

import pytest

from convert.bundle_writer import Writer
from convert.bundle_writer import write_bundle as write


@pytest.fixture(scope="session")
def write_bundle() -> Writer:
    """``write_bundle(prefix, arrays, compress=False, per_block=8)`` writes a checkpoint."""
    return write
