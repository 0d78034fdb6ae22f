"""Every row of ``make bench`` runs, and the table says what it means."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.table import Row, in_turns, markdown

ROOT = Path(__file__).resolve().parents[2]


def test_row__a_ratio_above_one_is_better() -> None:
    assert Row("a", "s", 1.0, "peer", 2.0).ratio == 2
    assert Row("a", "images/s", 3.0, "peer", 2.0, larger_is_better=True).ratio == 1.5
    assert Row("a", "s", 1.0).ratio is None
    page = markdown([Row("a", "s", 1234.5, "peer", 2.0, 1.2, "how")], ["note"])
    assert "| a | s | 1,234 | peer 2 | 0.00 x | ≥ 1.2 x | - | how |" in page
    assert page.endswith("- note\n")


def test_in_turns__warms_up_and_alternates() -> None:
    calls = []
    in_turns([lambda: calls.append("a"), lambda: calls.append("b")], 2)
    assert calls == ["a", "b"] * 3


SLOW = [pytest.param(row, marks=pytest.mark.slow) for row in ("evaluation", "opening")]


@pytest.mark.parametrize("row", ["crop", *SLOW])  # CI runs all: --quick
def test_bench__every_row_runs_in_small(row: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", row, "--quick", "--write", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert page.read_text().count("\n| ") >= 2


def test_bench__knows_its_rows() -> None:
    command = [sys.executable, "-m", "benchmarks", "lable"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "there is no row lable: choose of network, step, label" in done.stderr
