"""The last guard: one sentence and an exit status, whatever was raised."""

import errno

import pytest

from deepmac.errors import Interrupted, UserError
from deepmac.guard import guarded


def raising(error):
    def job():
        raise error

    return job


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("mend this"), 1, "mend this"),
        (Interrupted("stopped by SIGTERM", 143), 143, "stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/last.ckpt"), 1, "/a/last.ckpt"),
        (OSError(errno.EACCES, "Permission denied", "/a"), 1, "/a"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/b"), 1, "/b"),
        (MemoryError(), 1, "memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 1, "num_workers"),
        (RuntimeError("unable to write to file </torch_1>: No space left (28)"), 1, "/dev/shm"),
        (ZeroDivisionError("division by zero"), 70, "report"),
    ],
)
def test_guarded__says_one_sentence(error, code, words, capsys):
    assert guarded(raising(error)) == code
    said = capsys.readouterr().err
    assert words in said and said.startswith("deepmac: ") and said.count("\n") == 1
    assert "Traceback" not in said


def test_guarded__names_what_was_being_read(capsys):
    error = TypeError("x\ny")
    error.add_note("reading boxes.json")
    assert guarded(raising(error)) == 70
    said = capsys.readouterr().err
    assert "boxes.json" in said and said.count("\n") == 1


def test_guarded__shows_all_when_asked(monkeypatch):
    monkeypatch.setenv("DEEPMAC_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))


def test_guarded__leaves_the_command_that_goes_on_whole(capsys):
    command = "deepmac fit " + " ".join(f"data.key{n}=value{n}" for n in range(60))
    text = f"stopped by Ctrl-C, saved in /{'long' * 200}/last.ckpt; to go on: {command}"
    guarded(raising(Interrupted(text, 130)))
    said = capsys.readouterr().err
    assert said.endswith(f"; to go on: {command}\n") and len(said) < 420 + len(command)
