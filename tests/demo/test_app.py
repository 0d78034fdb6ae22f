"""The demo's server: what it takes, what it answers, whom it refuses."""

import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from starlette.testclient import TestClient

from deepmac import Predictor, load_model
from deepmac.cli import main
from deepmac.data.images import read_image
from deepmac.demo import guard, serving
from deepmac.demo.app import make_app
from deepmac.demo.pictures import Gallery, Limits, PictureError, decode
from deepmac.label.masks.calibration import Calibration
from deepmac.models.hub import save_pretrained
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


def test_masks__are_the_same_without_a_detector(client, picture, model, file_of, tmp_path):
    folder = save_pretrained(model, tmp_path / "whole")
    app = make_app(load_model(folder, detector=False), name="masks", limits=LIMITS)
    other = TestClient(app, base_url="http://127.0.0.1:7860")
    own = other.post("/pictures", content=file_of(120, 90)).json()
    given = {"boxes": BOXES}
    answers = [
        one.post(f"/pictures/{number}/masks", json=given).json()["objects"]
        for one, number in ((client, picture["id"]), (other, own["id"]))
    ]
    assert answers[0] == answers[1]


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
        ({"boxes": [[0, 0, 9, 9]] * 2001}, "at most 2000"),
        ({"boxes": 3}, "at most 2000"),
        ({}, "at most 2000"),
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


def floats():
    """A TIFF of numbers whose range nobody knows."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), dtype=np.float32)).save(file, "TIFF")
    return file.getvalue()


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
        (lambda file_of: b"\0\0\0\x18ftypheic" + bytes(99), 415, "HEIC"),
        (lambda file_of: b"\0\0\0\x18ftypmif1" + bytes(99), 415, "HEIC"),
        (lambda file_of: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "JPEG, PNG"),
        (lambda file_of: floats(), 415, "without a known range"),
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


def test_upload__reads_pictures_as_label_does(client, tmp_path):
    """16 bits, CMYK and TIFF; the page gets them as a PNG, which every browser shows."""
    deep = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000
    cmyk = Image.new("CMYK", (10, 6), (10, 200, 30, 40))
    for image, kind in ((Image.fromarray(deep), "TIFF"), (cmyk, "TIFF"), (cmyk, "JPEG")):
        image.save(tmp_path / "picture", kind)
        expected = read_image(tmp_path / "picture")
        seen = client.post("/pictures", content=(tmp_path / "picture").read_bytes()).json()
        png = client.get(f"/pictures/{seen['id']}/picture.png").content
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)


def test_score__is_the_iou_to_expect_where_the_model_is_calibrated(model, file_of):
    calibration = Calibration((0.0, 1.0), (0.5, 0.7))
    app = make_app(model, calibration=calibration)
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    assert client.get("/about").json()["calibrated"] is True
    picture = client.post("/pictures", content=file_of(120, 90)).json()
    path = f"/pictures/{picture['id']}/masks"
    one = client.post(path, json={"boxes": BOXES[:1]}).json()["objects"][0]
    assert 0.5 < one["iou"] < 0.7
    other = client.post(path, json={"boxes": BOXES[:1], "threshold": 0.3}).json()["objects"][0]
    assert other["iou"] is None  # nobody measured that
    assert other["area"] > one["area"]
    edges = client.post(path, json={"boxes": BOXES[:1], "refine": "edges"}).json()["objects"][0]
    assert edges["segmentation"] != one["segmentation"] and edges["iou"] is None
    for wrong in ("more", 3, ["none"]):
        body = {"boxes": BOXES[:1], "refine": wrong}
        assert "none, edges, full" in refusal(client.post(path, json=body), 400)
    for wrong in (0, 1, "0.5", True, [1], -1):
        body = {"boxes": BOXES[:1], "threshold": wrong}
        assert "between 0 and 1" in refusal(client.post(path, json=body), 400)


def test_name__with_half_a_surrogate_pair_is_no_fault_of_the_server(client, picture):
    for path in ("coco.json", "masks", "masks.png"):
        body = json.dumps({"boxes": BOXES, "file_name": "cat\ud800.jpg"})
        response = client.post(f"/pictures/{picture['id']}/{path}", content=body)
        assert response.status_code == 200
    coco = client.post(f"/pictures/{picture['id']}/coco.json", content=body).json()
    assert coco["images"][0]["file_name"] == "cat?.jpg"
    body = {"pictures": [{"file_name": "a\ud800", "width": 2, "height": 1, "segmentations": [[]],
                          "classes": [0]}], "classes": ["\udfff"]}  # fmt: skip
    assert client.post("/downloads/yolo.zip", content=json.dumps(body)).status_code == 200


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
    files = [path.name for path in (resources.files("deepmac.demo") / "page").iterdir()]
    assert len(files) > 5
    for name in files:
        response = client.get(f"/{name.replace('index.html', '')}")
        assert response.status_code == 200
        assert "http:" not in response.text and "//" not in response.text.replace("// ", "")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get("/../app.py").status_code == 404
    about = client.get("/about").json()
    assert about["limits"] == {"megabytes": 0.2, "megapixels": 0.1, "boxes": 2000}
    assert about["threshold"] == 0.5 and not about["job"]
    photograph = client.get("/example.jpg").content
    assert Image.open(io.BytesIO(photograph)).size == (600, 400)
    assert len(photograph) <= 150_000
    assert len(about["example"]["boxes"]) == 2


def test_command__says_what_is_wrong_in_one_sentence(tmp_path, capsys, model, monkeypatch):
    from deepmac.models.hub import save_pretrained

    assert main(["demo", "--model", str(tmp_path / "none")]) == 1
    assert "there is no model" in capsys.readouterr().err
    save_pretrained(model, tmp_path / "m")
    monkeypatch.chdir(tmp_path)
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


def test_command__ends_by_ctrl_c_without_a_word(model, tmp_path):
    from deepmac.models.hub import save_pretrained

    save_pretrained(model, tmp_path / "model")
    command = [sys.executable, "-m", "deepmac", "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, "--model", str(tmp_path / "model")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors == ""
    assert process.returncode == 0


def test_downloads__are_read_back(client, tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:15, 10:25] = 1
    rle = mask_to_rle(mask.astype(bool))
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    square = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
    one = {"file_name": "sub/a.jpg", "width": 30, "height": 20,
           "segmentations": [segmentation, square, []], "classes": [1, 0, 0]}  # fmt: skip
    two = {**one, "file_name": "../../a.png"}
    png = client.post("/downloads/masks.png", json={"pictures": [one]}).content
    numbers = np.asarray(Image.open(io.BytesIO(png)))
    np.testing.assert_array_equal(numbers == 1, mask > 0)
    assert (numbers == 2).sum() == 36
    body = {"pictures": [one, two], "classes": ["cup", "spoon"]}
    with zipfile.ZipFile(
        io.BytesIO(client.post("/downloads/masks.zip", json=body).content)
    ) as archive:
        assert archive.namelist() == ["sub/a.png", "a.png"]
    with zipfile.ZipFile(
        io.BytesIO(client.post("/downloads/yolo.zip", json=body).content)
    ) as archive:
        assert archive.namelist() == ["data.yaml", "labels/sub/a.txt", "labels/a.txt"]
        lines = archive.read("labels/a.txt").decode().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]
    outline = np.array(lines[0].split()[1:], dtype=float).reshape(-1, 2) * (30, 20)
    np.testing.assert_allclose(outline.min(0), (10, 5), atol=0.01)
    np.testing.assert_allclose(outline.max(0), (25, 15), atol=0.01)


@pytest.mark.parametrize(
    "one",
    [
        {"width": 10**6, "height": 10**6, "segmentations": []},
        {"width": 9.5, "height": 3, "segmentations": []},
        {"width": 9, "height": 3},
        {"width": 9, "height": 3, "segmentations": [{"size": [9, 9], "counts": "x"}]},
        {"width": 9, "height": 3, "segmentations": ["PPYo"]},
        {"width": 9, "height": 3, "segmentations": [[[0, 0, 1e300, 0, 5, 5]]]},
    ],
)
def test_downloads__of_what_is_no_mask_get_a_sentence(client, one):
    body = {"pictures": [one], "classes": []}
    for kind in ("masks.png", "masks.zip", "yolo.zip"):
        assert refusal(client.post(f"/downloads/{kind}", json=body), 400)
    assert refusal(client.post("/rles", json=one), 400)
    assert refusal(client.post("/downloads/masks.png", json={}), 400)
    assert refusal(client.post("/downloads/x.zip", json=body), 404)


def test_server__lets_go_of_clients_that_fall_silent(model, serve, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS_OF_SILENCE", 0.5)
    monkeypatch.setattr(serving, "SECONDS_OF_SILENCE", 0.5)
    address = serve(make_app(model))
    port = int(address.rstrip("/").rpartition(":")[2])
    head = b"POST /pictures HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n"
    silent = []
    for number in range(90):
        one = socket.create_connection(("127.0.0.1", port), timeout=30)
        one.sendall((b"", head[:20], head + b"\r\nabc")[number % 3])
        silent.append(one)
    with urllib.request.urlopen(address, timeout=10) as answer:  # others are not shut out
        assert answer.status == 200
    ends = [one.recv(200) for one in silent]
    assert all(not end or b" 408 " in end for end in ends)
    assert b" 408 " in ends[2]
    for one in silent:
        one.close()


def test_server__lets_two_hundred_clients_wait_for_their_turn(model, serve, file_of):
    address, content = serve(make_app(model, limits=Limits(kept=300))), file_of(40, 30)
    codes = []

    def visit():
        request = urllib.request.Request(f"{address}pictures", content)
        with urllib.request.urlopen(request, timeout=120) as answer:
            codes.append(answer.status)

    threads = [threading.Thread(target=visit) for _ in range(200)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 200, f"{len(codes)} answers after {time.monotonic() - start:.0f} s"


def test_server__bounds_how_many_wait(model, file_of, monkeypatch):
    monkeypatch.setattr(guard, "_WAITING", 0)
    client = TestClient(make_app(model), base_url="http://127.0.0.1:7860")
    response = client.post("/pictures", content=file_of(9, 9))
    assert "try again" in refusal(response, 503)
    assert response.headers["retry-after"]
