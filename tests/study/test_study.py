"""A sweep over mask heads: cost of a head, going on after a stop, table and figure at the end."""

import json

import pytest
import yaml
from PIL import Image

from deepmac.errors import ConfigError
from deepmac.lightning.compose import compose, lightning_config
from deepmac.lightning.finished import finished_value
from deepmac.study.cost import head_cost
from deepmac.study.effects import gains_of_boxes, gains_of_heads
from deepmac.study.report import write_study
from deepmac.study.runs import head_order, read_study
from deepmac.study.table import format_study
from tiny import REPOSITORY, TINY, run, train_py

WORDS = ("experiment=mask_head_study", "seed_everything=3")
HEADS = "fully_connected,resnet4,resnet20,hourglass10,hourglass20,hourglass52"


def configuration(*words):
    return lightning_config(compose([*WORDS, *words])[0])


def made_up_run(folder, *, seen=0.8, unseen=0.6, step=600, **changes):
    """A run directory as a training leaves it, with numbers of our choosing."""
    words = [f"{name}={value}" for name, value in changes.items()]
    config = configuration(*words)
    name = "-".join(words).replace("=", "_") or "run"
    (folder / name).mkdir(parents=True)
    (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {
        "step": step,
        "mask": {"AP": {"all": 0.25}},
        "mask_gt_box": {"mIoU": {"seen": seen, "unseen": unseen}},
        "filled_box": {"mIoU": {"seen": 0.5, "unseen": 0.4}},
    }
    (folder / name / "metrics.json").write_text(json.dumps(metrics))
    return folder / name


@pytest.mark.parametrize(
    ("experiment", "channels", "head", "parameters", "multiply_adds"),
    [
        ("mask_head_study", 256, "hourglass10", 1.76e6, 1.10e9),
        ("mask_head_study", 256, "hourglass52", 23.6e6, 1.95e9),
        ("mask_head_study_deepmac", 64, "hourglass10", 1.61e6, 0.95e9),
        ("mask_head_study_deepmac", 64, "resnet20", 3.55e6, 3.62e9),
    ],
)
def test_cost__at_the_published_width_is_the_published_one(
    experiment, channels, head, parameters, multiply_adds
):
    words = [f"experiment={experiment}", f"mask_head={head}", "model.num_init_channels=64"]
    words.append(f"model.pyramid_width={channels}")
    if experiment.endswith("deepmac"):
        words.append("model.dim=32")
    config = lightning_config(compose(words)[0])
    cost = head_cost(config["system"], config["model"])
    assert cost.parameters == pytest.approx(parameters, rel=0.01)
    assert cost.multiply_adds == pytest.approx(multiply_adds, rel=0.01)


def test_table__has_means_and_spreads_over_the_seeds(tmp_path):
    for seed, unseen in ((0, 0.60), (1, 0.64), (2, 0.62)):
        made_up_run(tmp_path, seed_everything=seed, mask_head="hourglass10", unseen=unseen)
    made_up_run(tmp_path, seed_everything=0, mask_head="resnet4", seen=0.7)
    lines = format_study(read_study(tmp_path)).splitlines()
    (shallow,) = [line for line in lines if line.startswith("| resnet4")]
    (deep,) = [line for line in lines if line.startswith("| hourglass10")]
    assert "| 0.800 ± 0.000 | 0.620 ± 0.020 | -0.180 | 0, 1, 2 |" in deep
    assert "| 0.700 | 0.600 | -0.100 | 0 |" in shallow
    assert lines.index(shallow) < lines.index(deep)
    assert any("(the box itself)" in line and "0.500 | 0.400" in line for line in lines)


def test_effects__compare_runs_of_the_same_seed(tmp_path):
    def runs(head, boxes, unseen):
        for seed, value in enumerate(unseen):
            settings = {"mask_head": head, "model.train_boxes": boxes, "seed_everything": seed}
            made_up_run(tmp_path, unseen=value, **settings)

    runs("resnet4", "gt", (0.50, 0.40))
    runs("hourglass20", "gt", (0.61, 0.53))
    runs("hourglass20", "proposals", (0.55, 0.55, 0.55))
    study = read_study(tmp_path)
    (gain,) = gains_of_heads(study)  # on proposals there is no shallow head
    assert (gain.mask_head, gain.train_boxes) == ("hourglass20", "gt")
    assert gain.unseen == pytest.approx((0.11, 0.13))
    (gain,) = gains_of_boxes(study)
    assert gain.unseen == pytest.approx((0.06, -0.02))
    table = format_study(study)
    assert "| hourglass20 | +0.000 ± 0.000 | +0.120 ± 0.014 | 2 |" in table
    assert "| hourglass20 | +0.000 ± 0.000 | +0.020 ± 0.057 | 2 |" in table


def test_heads__are_ordered_by_family_and_depth():
    heads = ["hourglass52", "resnet20", "hourglass10", "resnet4", "fully_connected"]
    assert sorted(heads, key=head_order) == [
        "fully_connected",
        "resnet4",
        "resnet20",
        "hourglass10",
        "hourglass52",
    ]


def test_groups__keep_systems_and_training_boxes_apart(tmp_path):
    made_up_run(tmp_path, **{"model.train_boxes": "gt"})
    made_up_run(tmp_path, **{"model.train_boxes": "proposals"})
    assert list(read_study(tmp_path).groups) == [("deepmarc", "gt"), ("deepmarc", "proposals")]


def test_runs__that_stopped_early_are_named_and_not_counted(tmp_path):
    made_up_run(tmp_path, seed_everything=0)
    stopped = made_up_run(tmp_path, seed_everything=1, step=200)
    study = read_study(tmp_path)
    assert study.unfinished == (stopped.name,)
    assert [run.seed for row in study.rows for run in row.runs] == [0]
    assert f"Not finished: {stopped.name}." in format_study(study)


def test_runs__of_different_budgets_are_not_mixed(tmp_path):
    made_up_run(tmp_path, seed_everything=0)
    made_up_run(tmp_path, step=500, **{"trainer.max_steps": 500})
    with pytest.raises(ConfigError, match=r"trainer.max_steps is 600 in .* and 500 in"):
        read_study(tmp_path)


def test_runs__without_unseen_classes_get_one_sentence(tmp_path):
    made_up_run(tmp_path, unseen=None)
    with pytest.raises(ConfigError, match="no unseen classes"):
        read_study(tmp_path)


def test_study__of_a_folder_without_runs_gets_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no finished run"):
        read_study(tmp_path)


def test_figure__is_written_beside_table_and_numbers(tmp_path):
    for boxes in ("gt", "proposals"):
        for seed in (0, 1):
            changes = {"model.train_boxes": boxes, "seed_everything": seed}
            made_up_run(tmp_path, seen=0.7 + seed / 50, **changes)
    write_study(tmp_path)
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.width > picture.height > 300
    rows = json.loads((tmp_path / "study.json").read_text())["rows"]
    assert [run["seen"] for run in rows[0]["runs"]] == [0.7, 0.72]
    assert "Deep-MARC, masks learned on proposals" in (tmp_path / "study.md").read_text()


def test_finished__is_a_run_evaluated_at_its_last_step(tmp_path):
    config = configuration()
    assert finished_value(tmp_path / "nowhere", config) is None
    assert finished_value(made_up_run(tmp_path / "a"), config) == 0.25
    assert finished_value(made_up_run(tmp_path / "b", step=299), config) is None


def test_finished__refuses_the_directory_of_a_run_with_other_settings(tmp_path):
    directory = made_up_run(tmp_path, **{"model.lr": 0.5})
    with pytest.raises(ConfigError, match=r"model.lr=0.5, not .*another hydra.sweep.dir"):
        finished_value(directory, configuration())


def test_finished__does_not_mind_another_number_of_loaders(tmp_path):
    directory = made_up_run(tmp_path, **{"data.num_workers": 3})
    assert finished_value(directory, configuration()) == 0.25


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of seconds over one seed, then the same over two."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep = [
        "-m",
        "experiment=mask_head_study",
        *(word for word in TINY if not word.startswith(("model.head", "trainer.max_epochs"))),
        "mask_head=hourglass10",
        "model.train_boxes=gt,proposals",
        "model.backbone=resnet10t",
        "model.weights=null",
        "model.pyramid_width=8",
        "model.num_init_channels=4",
        "model.head_channels=8",
        "trainer.max_steps=2",
        "hydra.sweep.dir=study",
    ]

    def start(*words):
        return run(train_py(*sweep, *words), cwd=folder, cache=folder / "cache")

    return folder / "study", start("seed_everything=0"), start("seed_everything=0,1")


def test_sweep__ends_with_table_and_figure(swept):
    folder, first, _ = swept
    assert first.returncode == 0, first.stderr[-3000:]
    assert "masks learned on ground-truth boxes" in first.stdout
    assert (folder / "study.png").is_file()


def test_sweep__again_skips_what_is_done_and_adds_what_is_new(swept):
    folder, _, second = swept
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.count("done already: ") == 2
    (row, _) = json.loads((folder / "study.json").read_text())["rows"]
    assert [run["seed"] for run in row["runs"]] == [0, 1]


def test_experiment__sweeps_seeds_outermost_then_six_heads():
    shared = yaml.safe_load((REPOSITORY / "conf/study/mask_head.yaml").read_text())
    params = shared["hydra"]["sweeper"]["params"]
    assert list(params) == ["seed_everything", "mask_head"]
    assert params["mask_head"] == HEADS
    assert params["seed_everything"] == "0,1,2"
