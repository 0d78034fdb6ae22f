"""What several tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the larger fixtures and real images; tests that need it are skipped without."""
    folder = Path(os.environ.get("DEEPMAC_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "coco_mini").is_dir():
        pytest.skip(f"the optional fixtures folder {folder} is absent (set DEEPMAC_SHARED)")
    return folder


@pytest.fixture(scope="session")
def reference_file(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds a fixture of the TensorFlow original: with the tests, or in the optional folder."""

    def find(name: str) -> Path:
        inside = REPOSITORY / "tests" / "reference" / "fixtures" / name
        if inside.is_file():
            return inside
        shared: Path = request.getfixturevalue("shared")
        return shared / "reference_fixtures" / name

    return find


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless; for a module, as no two of its drivers run side by side."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=1, help="interruptions of each kind to try")
