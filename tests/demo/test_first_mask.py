"""From nothing to a mask on one's own picture: the commands of the README, as they stand."""

import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from pycocotools import mask as coco_mask

from tiny import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def commands():
    block = re.search(r"## Your first mask.*?```\n(.*?)```", README, re.S)[1]
    lines = [line.partition("  #")[0].strip() for line in block.strip().splitlines()]
    assert len(lines) == 2
    return lines


@pytest.mark.slow
def test_two_commands__a_mask_on_my_picture(tmp_path):
    install, demo = commands()
    clone = ["git", "clone", "--quiet", REPOSITORY, "deepmac"]
    subprocess.run(clone, cwd=tmp_path, check=True, capture_output=True)
    checkout = tmp_path / "deepmac"

    # A new environment, which finds this one's packages, so that nothing is downloaded twice.
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "new"], check=True)
    libraries = next((tmp_path / "new").glob("lib/python*/site-packages"))
    (libraries / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    path = os.pathsep.join([str(tmp_path / "new" / "bin"), os.environ["PATH"]])
    new = {**os.environ, "PATH": path, "PYTHONPATH": "", "PIP_QUIET": "1"}
    subprocess.run(install, shell=True, cwd=checkout, env=new, check=True)

    process = subprocess.Popen(
        f"exec {demo} --port 0",
        shell=True,
        cwd=checkout,
        env=new,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            address = process.stdout.readline().split()[0]
            loaded = Path(f"/proc/{process.pid}/cmdline").read_text()
            assert str(tmp_path / "new" / "bin") in loaded
            picture = post(f"{address}/pictures", my_picture())
            cup = [170, 14, 412, 310]
            wanted = json.dumps({"boxes": [cup]}).encode()
            found = post(f"{address}/pictures/{picture['id']}/masks", wanted)["objects"][0]
        finally:
            process.terminate()
            process.wait(30)
    mask = coco_mask.decode(found["segmentation"])
    assert mask.shape == (400, 600)
    inside = mask[14:310, 170:412]
    assert inside.sum() == mask.sum() and 0.3 < inside.mean() < 0.95
    assert mask[80:250, 230:350].mean() > 0.9  # the middle of the cup


def my_picture():
    file = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(file, "JPEG")
    return file.getvalue()


def post(address, content):
    kind = "application/json" if content[:1] == b"{" else "application/octet-stream"
    request = urllib.request.Request(address, content, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
