"""The demo's server: what it takes, what it answers, whom it refuses."""

import io
import json
import struct
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from starlette.testclient import TestClient

from deepmac import Predictor
from deepmac.cli import main
from deepmac.demo.app import make_app
from deepmac.demo.pictures import Gallery, Limits, PictureError, decode
from deepmac.predict.paste import mask_to_rle

BOXES = [[10, 20, 70, 50], [0, 0, 120, 90]]
LIMITS = Limits(upload_megabytes=0.2, megapixels=0.1, kept=2)


@pytest.fixture
def client(model):
    app = make_app(model, name="tiny", limits=LIMITS)
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.fixture
def picture(client, file_of):
    return client.post("/pictures", content=file_of(120, 90)).json()


def refusal(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


def test_masks__are_the_predictors(client, picture, model, file_of):
    assert (picture["width"], picture["height"]) == (120, 90)
    answer = client.post(f"/pictures/{picture['id']}/masks", json={"boxes": BOXES}).json()
    predictor = Predictor(model)
    predictor.set_image(np.array(Image.open(io.BytesIO(file_of(120, 90)))))
    masks, scores = predictor.predict(BOXES)
    assert masks.any()
    for one, mask, score in zip(answer["objects"], masks, scores, strict=True):
        assert one["segmentation"]["counts"].encode() == mask_to_rle(mask)["counts"]
        assert one["area"] == mask.sum()
        assert one["score"] == pytest.approx(score, abs=1e-3)
    assert answer["objects"][0]["bbox"] == [10, 20, 60, 30]


def test_one_more_box__costs_no_pass_of_the_backbone(client, picture, model, monkeypatch):
    def fails(*_):
        raise AssertionError("the backbone ran again")

    monkeypatch.setattr(model, "forward", fails)
    for count in (1, 2):
        path = f"/pictures/{picture['id']}/masks"
        assert client.post(path, json={"boxes": BOXES[:count]}).status_code == 200


def test_coco_json__is_a_data_set_that_pycocotools_reads(client, picture, tmp_path):
    wanted = {"boxes": BOXES, "file_name": "a/../cat.jpg"}
    content = client.post(f"/pictures/{picture['id']}/coco.json", json=wanted).text
    (tmp_path / "coco.json").write_text(content)
    coco = COCO(tmp_path / "coco.json")
    assert coco.imgs[1]["file_name"] == "a_.._cat.jpg"
    assert [a["bbox"] for a in coco.anns.values()] == [[10, 20, 60, 30], [0, 0, 120, 90]]
    for annotation in coco.anns.values():
        assert coco.annToMask(annotation).sum() == annotation["area"]


def test_masks_png__numbers_the_boxes(client, picture):
    response = client.post(f"/pictures/{picture['id']}/masks.png", json={"boxes": BOXES})
    image = Image.open(io.BytesIO(response.content))
    assert image.mode == "P"
    assert image.size == (120, 90)
    assert set(np.unique(np.asarray(image))) <= {0, 1, 2}
    assert (np.asarray(image) == 2).any()


def test_boxes__may_reach_out_of_the_picture_and_be_drawn_backwards(client, picture):
    path = f"/pictures/{picture['id']}/masks"
    (one,) = client.post(path, json={"boxes": [[200, 50, 60, -10]]}).json()["objects"]
    assert one["bbox"] == [60, 0, 60, 50]
    assert client.post(path, json={"boxes": []}).json() == {"objects": []}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"boxes": [[1, 2, 3]]}, "four finite numbers"),
        ({"boxes": [[1, 2, 3, "4"]]}, "four finite numbers"),
        ({"boxes": [[1, 2, 3, True]]}, "four finite numbers"),
        ({"boxes": [[5, 5, 5, 9]]}, "no area"),
        ({"boxes": [[500, 5, 600, 9]]}, "outside the picture"),
        ({"boxes": [[0, 0, 9, 9]] * 201}, "at most 200"),
        ({"boxes": 3}, "at most 200"),
        ({}, "at most 200"),
        ([], "did not understand"),
    ],
)
def test_boxes__that_are_none_get_a_sentence(client, picture, body, said):
    assert said in refusal(client.post(f"/pictures/{picture['id']}/masks", json=body), 400)


def test_boxes__that_are_no_numbers_or_no_json_get_a_sentence(client, picture):
    path = f"/pictures/{picture['id']}/masks"
    for text, said in (
        ('{"boxes": [[NaN, 0, 9, 9]]}', "four finite"),
        ('{"boxes": [[1e999, 0, 9, 9]]}', "four finite"),
        ("{", "did not understand"),
        ("[" * 100_000, "did not understand"),
        ('{"boxes": "' + "x" * 300_000 + '"}', "did not understand"),
    ):
        assert said in refusal(client.post(path, content=text), 400)


def png_of(width, height):
    """The header of a PNG that claims to be large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for chunk in (b"IHDR" + header, b"IDAT" + zlib.compress(b"")):
        chunks += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("make", "status", "said"),
    [
        (lambda file_of: b"x" * 200_001, 413, "limit of 0.2 MB"),
        (lambda file_of: file_of(400, 300), 413, "0.1 million pixels"),
        (lambda file_of: png_of(60_000, 60_000), 413, "0.1 million"),
        (lambda file_of: png_of(30_000, 1), 400, "too narrow"),
        (lambda file_of: file_of(120, 90, "JPEG")[:900], 415, "cannot be read"),
        (lambda file_of: b"", 415, "cannot be read"),
        (lambda file_of: b"<svg/>", 415, "cannot be read"),
        (lambda file_of: file_of(64, 64, "TIFF"), 415, "JPEG, PNG, WebP"),
    ],
)
def test_upload__of_what_is_no_picture_or_too_large(client, file_of, make, status, said):
    assert said in refusal(client.post("/pictures", content=make(file_of)), status)


def test_upload__without_a_length_is_cut_off_at_the_limit(client):
    sent = []

    def endless():
        for _ in range(50):
            sent.append(1)
            yield b"x" * 10_000

    assert "limit of 0.2 MB" in refusal(client.post("/pictures", content=endless()), 413)


def test_upload__is_turned_as_its_exif_says(model, file_of):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(file_of(120, 90, "JPEG", exif=exif), Limits()).shape == (120, 90, 3)
    assert decode(file_of(20, 10, "GIF"), Limits()).shape == (10, 20, 3)


def test_gallery__lets_go_of_the_picture_longest_unused(model, file_of):
    gallery = Gallery(model, Limits(kept=2))
    first, _ = gallery.add(file_of(30, 20))
    second, _ = gallery.add(file_of(30, 20))
    gallery.get(first)
    third, _ = gallery.add(file_of(30, 20))
    assert len(gallery) == 2
    assert gallery.get(first) and gallery.get(third)
    with pytest.raises(PictureError, match="no longer held"):
        gallery.get(second)


def test_gallery__counts_pixels_as_well(model, file_of):
    gallery = Gallery(model, Limits(kept=100, megapixels=0.001))
    for _ in range(10):
        gallery.add(file_of(40, 25))
    assert len(gallery) == 4


def test_picture__that_is_gone_or_unknown(client):
    path = "/pictures/unknown/masks"
    assert "open it again" in refusal(client.post(path, json={"boxes": BOXES}), 410)


def test_server__answers_under_its_own_name_and_to_its_own_page_only(model, file_of):
    client = TestClient(make_app(model), base_url="http://127.0.0.1:7860")
    own = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert client.post("/pictures", content=file_of(9, 9), headers=own).status_code == 200
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
    for method, headers in (
        ("GET", {"host": "evil.example"}),  # a foreign name that resolves to this machine
        ("GET", {"host": "["}),
        ("POST", {"origin": "https://evil.example"}),
        ("POST", {"origin": "null"}),
        ("POST", {"origin": "http://127.0.0.1:9999"}),  # another server on this machine
        ("POST", {"sec-fetch-site": "cross-site"}),
    ):
        response = client.request(method, "/pictures" if method == "POST" else "/", headers=headers)
        assert response.status_code == 403, headers
    everywhere = TestClient(make_app(model, hosts=("*",)), base_url="http://192.168.0.7")
    assert everywhere.get("/").status_code == 200


def test_page__needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "access-control-allow-origin" not in page.headers
    for path in ("/", "/app.js", "/boxes.js", "/masks.js", "/view.js", "/style.css"):
        response = client.get(path)
        assert response.status_code == 200
        assert "http" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get("/../app.py").status_code == 404
    assert client.get("/about").json()["limits"] == {
        "megabytes": 0.2, "megapixels": 0.1, "boxes": 200,
    }  # fmt: skip
    assert Image.open(io.BytesIO(client.get("/example.png").content)).size == (512, 512)


def test_command__says_what_is_wrong_in_one_sentence(tmp_path, capsys, model, monkeypatch):
    import socket

    import deepmac.models.files

    assert main(["demo", "--model", str(tmp_path / "none")]) == 1
    assert "there is no model" in capsys.readouterr().err
    monkeypatch.setattr(deepmac.models.files, "load_model", lambda *_, **__: model)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--model", "m", "--port", str(port)]) == 1
        assert capsys.readouterr().err == (
            f"deepmac: the port {port} of 127.0.0.1 is taken: give another --port (0 chooses a "
            "free one)\n"
        )
    for words in (["--port", "99999"], ["--host", "no.such.host.invalid"]):
        assert main(["demo", "--model", "m", *words]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_command__serves_on_this_machine_only(model, tmp_path):
    from deepmac.models.hub import save_pretrained

    save_pretrained(model, tmp_path / "model")
    command = [str(Path(sys.executable).parent / "deepmac"), "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, "--model", str(tmp_path / "model")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address + "/about", timeout=30) as answer:
                assert json.load(answer)["model"] == "model"
            listening = Path("/proc/net/tcp")
            if listening.exists():
                port = f":{int(address.rpartition(':')[2]):04X}"
                lines = [line.split()[1] for line in listening.read_text().splitlines()]
                mine = [line for line in lines if line.endswith(port)]
                assert mine and all(line.startswith("0100007F") for line in mine)
        finally:
            process.terminate()
            process.wait(20)
