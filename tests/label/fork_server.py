"""Runs `deepmac label` in forked processes, so that each costs no imports and can be killed.

Reads one JSON object a line: ``arguments`` of the command, and ``die_at``: the n-th step onto the
disk (a rename or removal) at which the process kills itself, before the step for an even number and
after it for an odd one. Answers with the process id, then with its exit code.
"""

import io
import itertools
import json
import os
import signal
import sys

from deepmac.label import command, job  # noqa: F401 - imported before the forks
from deepmac.label.masks import held_out  # noqa: F401
from deepmac.models.files import load_model


def dying_at(step: int) -> None:
    counter = itertools.count()

    def wrap(function):
        def wrapped(*args, **kwargs):
            number = 2 * next(counter)
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if number + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in ("replace", "rename", "unlink"):
        setattr(os, name, wrap(getattr(os, name)))


def main() -> None:
    import torch

    torch.set_num_threads(1)
    load_model(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.stdout = io.StringIO()
            sys.stderr = open(request["log"], "a")  # noqa: SIM115
            if request.get("die_at") is not None:
                dying_at(request["die_at"])
            from deepmac.cli import main as deepmac

            code = deepmac(["label", *request["arguments"]])
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
