"""The command lines of the README, through both doors, as real processes."""

import json
import re

import pytest
import yaml

from tiny import TINY, deepmac, run, train_py


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")

    def go(command):
        done = run(command, cwd=folder, cache=folder / "cache")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert done.stderr == "", "nothing is said beside the run's own lines"
        return done.stdout

    return folder, go


@pytest.fixture(scope="module")
def trained(place):
    """`python train.py`, the door that the other tests compare with."""
    folder, go = place
    out = go(train_py(*TINY, "hydra.run.dir=first"))
    return folder / "first", out


def test_train__leaves_the_whole_run_directory(trained):
    run_dir, out = trained
    for name in (
        "config.yaml",
        "metrics.csv",
        "metrics.json",
        "report.html",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/step_0000004.png",
    ):
        assert (run_dir / name).is_file(), name
    assert list((run_dir / "tensorboard").glob("events*"))
    about = json.loads((run_dir / "about.json").read_text())["lines"]
    assert list(about) == [
        "experiment", "command", "commit", "model", "data", "hardware", "duration",
    ]  # fmt: skip
    assert about["command"].startswith("train.py data.shapes_train=16")
    assert re.fullmatch(r"CPU, precision 32-true, torch \d.*", about["hardware"])
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["step"] == 4
    assert metrics["images"] == 4
    for section, names in {
        "box": ["AP"],
        "mask": ["AP"],
        "mask_gt_box": ["AP", "mIoU", "boundary_IoU"],
        "filled_box": ["AP", "mIoU", "boundary_IoU"],
    }.items():
        for name in names:
            assert {"all", "seen", "unseen"} <= metrics[section][name].keys()
    assert "mIoU" in out
    assert "run directory: first" in out.splitlines()
    first, network, cost = out.splitlines()[:3]
    assert first == "fit, into first"
    assert network.startswith("deepmac: tf_efficientnet_lite0") and "GFLOP an image" in cost
    assert not any(word in out for word in ("Total FLOPs", "Seed set", "GPU available"))
    assert out.rstrip().splitlines()[-1].startswith("in percent"), "the table comes last"


def test_fit__prints_the_configuration_that_train_saves(trained, place):
    run_dir, _ = trained
    folder, go = place
    printed = go(deepmac("fit", *TINY, "--print_config"))
    assert printed == (run_dir / "config.yaml").read_text()
    (folder / "run.yaml").write_text(printed)


def test_fit__runs_again_from_the_flat_file_with_a_change(trained, place):
    run_dir, _ = trained
    folder, go = place
    out = go(deepmac("fit", "--config", str(run_dir / "config.yaml"), "--trainer.max_steps=2"))
    (line,) = [line for line in out.splitlines() if line.startswith("run directory: ")]
    second = line.removeprefix("run directory: ")
    saved = yaml.safe_load((folder / second / "config.yaml").read_text())
    first = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["trainer"].pop("max_steps") == 2
    assert first["trainer"].pop("max_steps") == -1
    assert saved == first


def test_fit__is_the_same_run_as_train(trained, place):
    run_dir, _ = trained
    folder, go = place
    go(deepmac("fit", *TINY, "hydra.run.dir=second"))
    assert (folder / "second/config.yaml").read_text() == (run_dir / "config.yaml").read_text()
    assert losses(folder / "second") == losses(run_dir)


def test_validate__repeats_the_final_numbers_of_the_checkpoint(trained, place):
    run_dir, _ = trained
    folder, go = place
    last = run_dir / "checkpoints/last.ckpt"
    go(deepmac("validate", *TINY, f"ckpt_path={last}", "hydra.run.dir=third"))
    first = json.loads((run_dir / "metrics.json").read_text())
    third = json.loads((folder / "third/metrics.json").read_text())
    assert third["mask_gt_box"] == first["mask_gt_box"]
    assert third["mask"] == first["mask"]


def test_validate__takes_the_model_from_the_checkpoint_when_nothing_is_said_of_it(trained, place):
    run_dir, _ = trained
    folder, go = place
    data = [word for word in TINY if word.startswith("data.")]
    last = run_dir / "checkpoints/last.ckpt"
    go(deepmac("validate", *data, f"ckpt_path={last}", "hydra.run.dir=fourth"))
    assert (folder / "fourth/metrics.json").is_file()


def test_predict__writes_a_results_file_that_coco_accepts(trained, place):
    run_dir, _ = trained
    folder, go = place
    (data,) = (folder / "cache").glob("shapes-*/annotations")
    content = json.loads((data / "instances_val.json").read_text())
    del content["annotations"]
    (folder / "image_info.json").write_text(json.dumps(content))
    go(
        deepmac(
            "predict",
            *TINY,
            f"ckpt_path={run_dir}/checkpoints/last.ckpt",
            f"data.predict_json={folder}/image_info.json",
            "model.min_score=0.0",
            "hydra.run.dir=fifth",
        )
    )
    from pycocotools.coco import COCO

    truth = COCO(str(data / "instances_val.json"))
    results = truth.loadRes(str(folder / "fifth/predictions.json"))
    assert {r["image_id"] for r in results.anns.values()} <= set(truth.imgs)
    assert all({"segmentation", "bbox", "score"} <= r.keys() for r in results.anns.values())


def test_sweep__runs_every_value_in_a_folder_of_its_own(place):
    folder, go = place
    words = [w for w in TINY if "max_epochs" not in w]
    out = go(
        train_py("-m", *words, "trainer.max_steps=1", "model.lr=1e-3,5e-4", "hydra.sweep.dir=sweep")
    )
    rates = [
        yaml.safe_load((folder / f"sweep/{i}/config.yaml").read_text())["model"]["lr"]
        for i in range(2)
    ]
    assert rates == [1e-3, 5e-4]
    table = out[out.rindex("settings") :]
    assert "mask AP" in table
    assert all(
        re.search(rf"^ *{n} +model\.lr={rate} ", table, re.M) for n, rate in enumerate(rates)
    )


def losses(run_dir):
    import csv

    with (run_dir / "metrics.csv").open() as file:
        return [
            (row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
        ]


def test_two_processes__evaluate_every_image_once(place):
    folder, go = place
    words = [w for w in TINY if "accelerator" not in w]
    out = go(
        train_py(
            *words,
            "trainer=ddp",
            "trainer.accelerator=cpu",
            "trainer.devices=2",
            "trainer.max_steps=1",
            "hydra.run.dir=ddp",
        )
    )
    metrics = json.loads((folder / "ddp/metrics.json").read_text())
    assert metrics["images"] == metrics["images_in_data_set"] == 4
    assert metrics["instances"]["missing_gt_box_masks"] == 0
    assert out.count("trainer.sync_batchnorm: torch synchronises") == 1
    assert out.rstrip().splitlines()[-1].startswith("in percent"), "the table comes last"


@pytest.mark.slow
def test_early_stopping__says_why_the_training_ended(place):
    folder, go = place
    words = [w for w in TINY if "max_epochs" not in w]
    words += ["callbacks=early_stopping", "callbacks.early_stopping.init_args.patience=1"]
    words += ["trainer.max_epochs=8", "model.lr=1e-9", "model.warmup_start_lr=1e-9"]
    out = go(train_py(*words, "hydra.run.dir=early"))
    assert "stopped early: mask/AP/all has not become better than 0.000 in 1 validations" in out
    assert json.loads((folder / "early/metrics.json").read_text())["step"] < 32


@pytest.mark.slow
def test_moving_average__and_accumulation_run_to_the_end(place):
    folder, go = place
    words = ["callbacks=ema", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"]
    go(train_py(*TINY, *words, "hydra.run.dir=ema"))
    assert json.loads((folder / "ema/metrics.json").read_text())["step"] == 2
