"""A small network behind the page, on this process's own port."""

import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from deepmac.class_map import ClassMap
from deepmac.models.card import ModelCard
from deepmac.models.files import build_model
from deepmac.nn.backbones import IMAGENET


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    network = {
        "backbone": "hourglass_10",
        "head_channels": 8,
        "mask_head": "hourglass10",
        "num_init_channels": 4,
        "pixel_embedding_dim": 4,
        "dim": 4,
    }
    card = ModelCard(network, IMAGENET, ClassMap((1,), ("thing",), frozenset()), image_size=64)
    model = build_model(card, source="the test").eval()
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
    import uvicorn

    servers = []

    def start(app):
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
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
