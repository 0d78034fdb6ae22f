"""What a user gets wrong is answered with one sentence and a non-zero exit, before training."""

import json
import shutil

import pytest

from deepmac.cli import main
from tiny import TINY, deepmac, run, train_py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mistakes")


@pytest.fixture(scope="module")
def coco(folder):
    """A small COCO folder of real files."""
    from deepmac.data.shapes.data_set import write_shapes

    write_shapes(folder / "coco", num_train=6, num_val=2, size=64)
    return folder / "coco"


def one_sentence(done):
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("deepmac: ")]
    assert len(lines) == 1, done.stderr[-2000:]
    return lines[0]


def changed(coco, folder, name, change):
    copy = folder / name
    shutil.copytree(coco, copy)
    path = copy / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change(content, copy)
    path.write_text(json.dumps(content))
    return copy


DATA = [w for w in TINY if not w.startswith("data.shapes")]


@pytest.mark.parametrize("door", ["train", "fit"])
def test_missing_root__both_doors(folder, door):
    words = (*DATA, "data=coco", "data.root=/nowhere")
    command = train_py(*words) if door == "train" else deepmac("fit", *words)
    assert "/nowhere" in one_sentence(run(command, cwd=folder, cache=folder))


def zero_area(content, _):
    content["annotations"][0]["bbox"][2] = 0


def not_a_number(content, _):
    content["annotations"][0]["bbox"][0] = float("nan")


def unknown_category(content, _):
    content["annotations"][0]["category_id"] = 99


def image_missing(content, root):
    (root / "images" / content["images"][0]["file_name"]).unlink()


def image_cut_short(content, root):
    path = root / "images" / content["images"][0]["file_name"]
    path.write_bytes(path.read_bytes()[:200])


def not_coco(content, _):
    content.clear()
    content["hello"] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (zero_area, "annotation"),
        (not_a_number, "annotation"),
        (unknown_category, "99"),
        (image_missing, "train_000001.jpg"),
        (image_cut_short, "train_000001.jpg"),
        (not_coco, "instances_train.json"),
    ],
)
def test_bad_data__stops_before_training(coco, folder, change, words, capsys, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    root = changed(coco, folder, change.__name__, change)
    run_dir = folder / f"run_{change.__name__}"
    code = main(["fit", *DATA, "data=coco", f"data.root={root}", f"hydra.run.dir={run_dir}"])
    said = capsys.readouterr().err
    assert code == 1
    assert words in said and said.startswith("deepmac: ") and "Traceback" not in said
    assert not (run_dir / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["split=voc_to_nonvoc"], "none of the 20 voc classes"),
        (["split=custom", "data.masked_classes=[dsk]"], "dsk"),
        (["model.num_classes=3"], "num_classes"),
        (["model.mask_head=hourglass11"], "hourglass11"),
        (["model.backbone=resnet5000"], "resnet5000"),
        (["model.lr=fast"], "lr"),
        (["data.image_size=66"], "multiples of"),
        (["data.batch_size=100"], "batch"),
        (["ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
        (["ckpt_path=best"], "best"),
        (["data.batch_size=null"], "data.batch_size=null"),
        (["model.mask_size=33"], "multiple of 2"),
        (["model.num_init_channels=8192"], "GB"),
        (["trainer.devices=abc"], "devices"),
        (["trainer.devices=9999"], "starts as many processes"),
        (["callbacks.best.init_args.monitor=''"], "monitor is empty: name a metric"),
        (["trainer.accelerator=gpu"], "gpu"),
        (["trainer.max_steps=-2"], "trainer.max_steps"),
        (["trainer.limit_val_batches=2.5"], "trainer.limit_val_batches"),
        (["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches"),
        (["trainer.callbacks=3"], "callbacks"),
        (["callbacks.evaluate.init_args.max_detections=-1"], "max_detections"),
        (["seed_everything=-1"], "seed_everything"),
    ],
)
def test_bad_settings__one_sentence(coco, folder, words, expected, capsys, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    base = [w for w in DATA if w.split("=")[0] not in {x.split("=")[0] for x in words}]
    code = main(
        ["fit", *base, "data=coco", f"data.root={coco}", *words, f"hydra.run.dir={folder}/bad"]
    )
    said = capsys.readouterr().err
    assert code != 0
    assert expected in said, said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1 and len(said) < 400


def test_drop__leaves_bad_annotations_out_and_counts_them(coco, folder, capsys, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    root = changed(coco, folder, "dropped", zero_area)
    words = ["data=coco", f"data.root={root}", "data.on_error=drop", f"hydra.run.dir={folder}/ok"]
    assert main(["fit", *DATA, *words, "data.batch_size=2", "trainer.max_steps=1"]) == 0
    said = capsys.readouterr()
    assert "1 annotation" in said.err + said.out


def test_check_data__reports_and_exits_by_what_it_found(coco, folder, capsys, monkeypatch):
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    assert main(["check-data", f"data.root={coco}", f"hydra.run.dir={folder}/c1"]) == 0
    assert (folder / "c1/check_data.png").is_file()
    monkeypatch.delenv("DEEPMAC_RUN_DIR", raising=False)
    root = changed(coco, folder, "checked", zero_area)
    assert main(["check-data", f"data.root={root}", f"hydra.run.dir={folder}/c2"]) == 1
    assert "zero" in capsys.readouterr().out.lower()


def test_unknown_command__names_the_known_ones(capsys):
    assert main(["fitt"]) == 2
    assert "fit" in capsys.readouterr().err
    assert main(["lable"]) == 2
    assert "did you mean label?" in capsys.readouterr().err


def test_no_arguments__is_help_without_waiting(capsys):
    assert main([]) == 0
    assert "experiment=" in capsys.readouterr().out
