"""Files and folders appear whole or not at all, whatever stops the process that writes them."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from deepmac import files


@pytest.fixture(params=["unnamed", "named"])
def draft(request, monkeypatch):
    """Both kinds of drafts: without a name where the system can, else beside the target."""
    if request.param == "named":

        def refuse(path):
            raise OSError(95, "no unnamed files here")

        monkeypatch.setattr(files, "_Unnamed", refuse)
    return request.param


@pytest.fixture(params=["disk", "/dev/shm"])
def folder(request, tmp_path):
    """On the disk of the temporary folder, and on another file system."""
    if request.param == "disk":
        yield tmp_path
        return
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("there is no /dev/shm to write to")
    path = shared / f"deepmac-test-{os.getpid()}"
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of two megabytes."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if os.name != "posix" or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_atomic_file__replaces_only_when_the_block_ends_well(folder, draft):
    path = folder / "a.txt"
    files.write_atomically(path, "old")
    with pytest.raises(RuntimeError), files.atomic_file(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with files.atomic_file(path) as file:
        file.write("new\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == b"new\n"
    assert os.listdir(folder) == ["a.txt"]


def test_atomic_file__has_the_permissions_of_any_file(folder, draft):
    files.write_atomically(folder / "ours", "")
    (folder / "usual").write_text("")
    assert (folder / "ours").stat().st_mode == (folder / "usual").stat().st_mode


def test_full_disk__keeps_the_old_file_and_names_it(small_disk, draft):
    path = small_disk / "a.bin"
    files.write_atomically(path, b"old")
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_atomically(path, bytes(4 << 20))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(small_disk) == ["a.bin"]


def killed_while(write, folder):
    """Run ``write`` in a process that is killed from within it."""
    child = os.fork()
    if child == 0:
        write(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def half_a_file(folder):
    with files.atomic_binary(folder / "a.bin") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def half_a_folder(folder):
    with files.new_folder(folder / "out") as draft:
        (draft / "part").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)


def test_kill__leaves_the_old_file_and_drafts_are_swept(folder, draft):
    files.write_atomically(folder / "a.bin", b"old")
    killed_while(half_a_file, folder)
    assert (folder / "a.bin").read_bytes() == b"old"
    assert len(os.listdir(folder)) == (1 if draft == "unnamed" else 2)
    files.sweep_drafts(folder)
    assert os.listdir(folder) == ["a.bin"]


def test_kill__folders_are_swept_by_the_next_writer(folder):
    killed_while(half_a_folder, folder)
    assert not (folder / "out").exists() and len(os.listdir(folder)) == 1
    with files.new_folder(folder / "out") as draft:
        (draft / "part").write_text("y")
    assert os.listdir(folder) == ["out"] and os.listdir(folder / "out") == ["part"]


def test_sweep__spares_drafts_that_are_being_written(folder, monkeypatch):
    def refuse(path):
        raise OSError(95, "no unnamed files here")

    monkeypatch.setattr(files, "_Unnamed", refuse)
    with files.new_folder(folder / "out"), files.atomic_file(folder / "a"):
        child = os.fork()
        if child == 0:
            files._own.clear()  # as in a process of its own
            os._exit(files.sweep_drafts(folder))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert files.sweep_drafts(folder) == 0
    assert sorted(os.listdir(folder)) == ["a", "out"]
