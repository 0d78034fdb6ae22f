"""``deepmac shard`` is stopped: no process stays, what is kept is said, it goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

SAID = "deepmac: stopped by {}: finished chunks are kept; start again to go on\n"


def processes(group):
    """That still run in a process group."""
    found = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return sum(int(row[0]) == group and not row[1].startswith("Z") for row in rows)


def heard():
    """Ctrl-C, which a shell's background jobs and all that they start ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        (signal.SIGTERM, 143, SAID.format("SIGTERM")),
        (signal.SIGINT, 130, SAID.format("Ctrl-C")),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_stopped__leaves_no_process_and_goes_on(folder, tmp_path, how, status, said):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "deepmac", "shard", f"data.root={folder}", "--out", str(out)]
    command += ["--chunk-mb", "0.001", "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=heard,
    )  # fmt: skip
    try:
        while process.poll() is None and not list(out.rglob("*.chunk")):
            time.sleep(0.002)
        process.send_signal(how)
        assert process.wait(timeout=60) == status
        end = time.monotonic() + 20
        while processes(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert processes(process.pid) == 0
        assert process.stderr.read() == said
    finally:
        if processes(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "index.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    left = {"index.json", "train.chunks.npy", "val.chunks.npy", "train", "val"}
    assert {path.name for path in out.iterdir()} == left
    assert len(list(out.rglob("*.chunk"))) == 49
