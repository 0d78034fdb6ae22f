"""A small generated set, as a folder and as chunks, and an object store on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from deepmac.data.annotations.coco import read_coco
from deepmac.data.shapes.data_set import write_shapes
from deepmac.data.stream.shard import Sharding, shard

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder") / "set"
    write_shapes(root, num_train=42, num_val=7, size=64)
    return root


@pytest.fixture(scope="session")
def sets(folder):
    def read(name):
        return read_coco(folder / f"annotations/instances_{name}.json", folder / "images")

    return {"train": read("train"), "val": read("val")}


@pytest.fixture(scope="session")
def chunks(sets, tmp_path_factory):
    place = tmp_path_factory.mktemp("chunks") / "set"
    report = shard(sets, str(place), Sharding(chunk_mb=0.02), source="the tests")
    assert report.finished and report.chunks > 6
    return place


class ObjectStore:
    """moto's S3 in a process of its own, which can be stopped and started again."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        server = "from moto.server import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", server, "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url + "/moto-api/", timeout=1)
                return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError("moto's server did not start")

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def object_store():
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    store = ObjectStore().start()
    before = dict(os.environ)
    os.environ.update(KEYS, AWS_ENDPOINT_URL=store.url)
    yield store
    os.environ.clear()
    os.environ.update(before)
    store.stop()


@pytest.fixture
def bucket(object_store, request):
    """A new bucket's URL."""
    import s3fs

    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"
