"""What several tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the larger fixtures and real images; tests that need it are skipped without."""
    folder = Path(os.environ.get("DEEPMAC_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "coco_mini").is_dir():
        pytest.skip(f"the optional fixtures folder {folder} is absent (set DEEPMAC_SHARED)")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=1, help="interruptions of each kind to try")
