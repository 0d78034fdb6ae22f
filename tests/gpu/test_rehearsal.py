"""The script for a card runs to its end on a processor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu import PARTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_gpu_script__is_rehearsed_on_the_processor(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny"]
    subprocess.run([*command, "--out", str(out), "--minutes", "30"], check=True, cwd=ROOT)
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == [name for name, _, _ in PARTS]
    assert parts["parity"]["ok"] and parts["deterministic"]["equal"]
    assert parts["batch_size_auto"]["batch_size"] == 8 and parts["batch_size_auto"]["steps"] == 3
    assert parts["resume"]["largest relative difference"] < 1e-6


def test_gpu_script__says_that_there_is_no_card() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == "there is no CUDA card: rehearse with --device cpu --tiny\n"
