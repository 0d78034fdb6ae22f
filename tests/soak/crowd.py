"""The demo as a process of its own: two hundred clients at once, and clients that fall silent."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from random import Random

import numpy as np
from PIL import Image

from deepmac.demo.guard import SECONDS_OF_SILENCE
from soak.campaign import Part
from soak.children import End
from soak.counts import Counts
from soak.world import World

_CLIENTS, _SILENT = 200, 90


def part(world: World, goal: int) -> Part:
    """Crowds, each before a server of its own."""
    return Part(Counts("crowds before the demo", goal), _trial, world)


def _trial(part: Part, draw: Random) -> None:
    counts = part.counts
    counts.done += 1
    words = [sys.executable, "-m", "deepmac", "demo", "--model", str(part.world.model)]
    server = subprocess.Popen(
        [*words, "--port", "0", "--keep", "300"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+) ", server.stdout.readline())
        assert found is not None
        wrong = _crowd(int(found[1]), counts, draw)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            _, said = server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            _, said = server.communicate()
    end = End(0 if server.returncode in (0, 130) else server.returncode, said, 0.0, (), 0.0)
    if said.strip() and not wrong:
        wrong = "it did not end quietly"
    counts.add(end, name="crowd", wrong="silent wrong" if wrong else "", why=wrong)


def _crowd(port: int, counts: Counts, draw: Random) -> str:
    """What went wrong."""
    address = f"http://127.0.0.1:{port}/"
    head = b"POST /pictures HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n"
    began = time.monotonic()
    silent = []
    for number in range(_SILENT):
        one = socket.create_connection(("127.0.0.1", port), timeout=4 * SECONDS_OF_SILENCE)
        one.sendall((b"", head[: draw.randrange(1, 60)], head + b"\r\nabc")[number % 3])
        silent.append(one)
    told: Counter[str] = Counter()
    threads = [
        threading.Thread(target=_visit, args=(address, number, told)) for number in range(_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    for what, count in told.items():
        counts.notes[what] += count
    for one in silent:
        try:
            one.recv(200)
        except TimeoutError:
            return f"a silent client is held for {time.monotonic() - began:.0f} s"
        except ConnectionError:
            pass
        one.close()
    counts.notes["silent clients let go"] += len(silent)
    right = told["clients with their own masks"]
    return "" if right == _CLIENTS else f"{right} of {_CLIENTS} clients served: {dict(told)}"


def _visit(address: str, number: int, told: Counter[str]) -> None:
    """Send a picture of one's own size, ask for a mask of it; the answer is of that picture."""
    width, height = 30 + number % 50, 30 + number // 50
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), number, dtype=np.uint8)).save(file, "PNG")
    try:
        picture = _post(f"{address}pictures", file.getvalue())
        body = json.dumps({"boxes": [[2, 2, 25, 25]], "file_name": f"{number}.png"}).encode()
        answer = _post(f"{address}pictures/{picture['id']}/coco.json", body)
        (image,) = answer["images"]
        own = (image["width"], image["height"], image["file_name"])
        right = own == (width, height, f"{number}.png") and len(answer["annotations"]) == 1
        told["clients with their own masks" if right else "clients with another's answer"] += 1
    except urllib.error.HTTPError as error:
        told[f"clients turned away with {error.code}"] += 1
    except OSError as error:
        told[f"clients lost by {type(error).__name__}"] += 1


def _post(url: str, content: bytes) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, content), timeout=280) as answer:
        found: dict[str, object] = json.load(answer)
    return found
