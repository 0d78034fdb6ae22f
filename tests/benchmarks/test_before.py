"""An older working copy beside this one, each by its own code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def told(*words):
    command = [sys.executable, "-m", "benchmarks.before", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.slow
def test_a_checkout_beside_itself__is_as_fast_as_itself(tmp_path: Path) -> None:
    beside = tmp_path / "older"
    beside.symlink_to(ROOT, target_is_directory=True)
    done = told(beside, "--rounds", 1, "--repeats", 3)
    assert done.returncode == 0, done.stderr[-2000:]
    first, shipped, *others = done.stdout.splitlines()
    assert "ms (medians of 1 processes a side" in first and len(others) == 4
    assert 0.4 < float(shipped.split()[-2]) < 2.5


def test_a_folder_without_the_package__is_named(tmp_path: Path) -> None:
    (tmp_path / "src" / "deepmac").mkdir(parents=True)
    (tmp_path / "src" / "deepmac" / "__init__.py").write_text("")
    done = told(tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"this failed with the code of {tmp_path}: ImportError: " in done.stderr
