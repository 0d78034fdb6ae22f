"""A small network behind the page, on this process's own port."""

import contextlib
import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from deepmac.class_map import ClassMap
from networks import tiny_card, tiny_model


@pytest.fixture(scope="session")
def model():
    card = tiny_card(classes=ClassMap((1,), ("thing",), frozenset()), backbone="hourglass_10")
    model = tiny_model(card)
    model.mask_head.project_out.bias.data += 0.5  # some of each mask, whatever the weights
    return model


@pytest.fixture(scope="session")
def file_of():
    """A picture file of soft blobs."""

    def make(width, height, kind="PNG", **options):
        coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        pixels = (smooth * 255).permute(1, 2, 0).numpy().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def serve():
    """Runs an application in a thread and gives its address."""
    from deepmac.demo.serving import server_of

    servers = []

    def start(app):
        server = server_of(app, port=0)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


# ---- a real browser ----


@pytest.fixture
def visitor(chromium):
    """Opens pages; whatever the browser's console complains about fails the test."""
    with contextlib.ExitStack() as stack:
        complaints = []

        def open_page(address, **options):
            context = chromium.new_context(**options)
            stack.callback(context.close)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
            page.on("request", lambda r: r.url.startswith((address, "blob:", "data:")) or
                    complaints.append(r.url))  # fmt: skip
            page.goto(address)
            page.set_default_timeout(20_000)
            return page

        yield open_page
    assert [c for c in complaints if "status of 4" not in c] == []
