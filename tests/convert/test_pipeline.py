"""``deepmac convert pipeline.config``: experiments equal to ours, and not a field dropped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from convert.fuzz import fuzz_configs
from convert.official_configs import OFFICIAL, VOC_IDS, config
from deepmac.convert.command import command
from deepmac.convert.pipeline import convert_pipeline
from deepmac.errors import UserError
from deepmac.lightning.compose import compose
from deepmac.protobuf.text_proto import Message, parse_text_proto


def converted(folder: Path, text: str, name: str = "made") -> Any:
    """What was made of a config, and the settings that it composes to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.config").write_text(text)
    made = convert_pipeline(folder / "pipeline.config", folder / f"conf/experiment/{name}.yaml")
    composed, _ = compose([f"experiment={name}"], [folder / "conf"])
    return made, OmegaConf.to_container(composed)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_configs__are_our_experiments(tmp_path: Path, name: str) -> None:
    made, settings = converted(tmp_path, OFFICIAL[name])
    ours, _ = compose([f"experiment={name}", "model.compat=tf_release"])
    assert settings == OmegaConf.to_container(ours)
    assert not made.of_kind("unknown")


def test_the_newest_512__differs_in_what_it_says_more(tmp_path: Path) -> None:
    text = config(512, "hourglass52", VOC_IDS, "ckpt-1", "use_only_last_stage: true")
    _, settings = converted(tmp_path, text)
    last = "model.losses.use_only_last_stage=true"
    ours, _ = compose(["experiment=voc_to_nonvoc", "model.compat=tf_release", last])
    assert settings == OmegaConf.to_container(ours)


def leaves(message: Message, above: str = "") -> set[str]:
    found = set()
    for name, values in message.fields.items():
        path = f"{above}.{name}" if above else name
        inner = [v for v in values if isinstance(v, Message)]
        for value in inner:
            found |= leaves(value, path)
        if len(inner) < len(values) or not any(v.fields for v in inner):
            found.add(path)
    return found


def test_every_field_of_a_config__is_told_with_its_line(tmp_path: Path) -> None:
    text = OFFICIAL["voc_to_nonvoc"]
    made, _ = converted(tmp_path, text)
    told = {outcome.field for outcome in made.outcomes if outcome.line}
    for leaf in leaves(parse_text_proto(text)):
        assert any(leaf == path or leaf.startswith(path + ".") for path in told), leaf
    lines = text.splitlines()
    for outcome in made.outcomes:
        if outcome.line:
            assert outcome.field.rpartition(".")[2] in lines[outcome.line - 1]


def test_unknown_fields__are_named_in_the_yaml_and_in_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = OFFICIAL["coco_1024"].replace("num_steps: 50000", "num_step: 7")
    text = text.replace("dim: 32", "dim: 32 own_field { deeper: 'x' }", 1)
    (tmp_path / "pipeline.config").write_text(text)
    out = tmp_path / "experiment/mine.yaml"
    assert command([str(tmp_path / "pipeline.config"), "--out", str(out)]) == 0
    printed, yaml = capsys.readouterr().out, out.read_text()
    for shown in (printed, yaml):
        assert re.search(r"train_config.num_step \(line \d+: 7\): unknown.*mean num_steps\?", shown)
        assert "deepmac_mask_estimation.own_field" in shown
    assert f"python train.py --config-dir {tmp_path} experiment=mine data.root=" in printed
    settings, _ = compose(["experiment=mine"], [tmp_path])
    assert settings.trainer.max_steps == -1  # the original's default: without end


@pytest.mark.parametrize(
    ("old", "new", "setting", "value"),
    [
        ("dim: 32", "", "model.dim", 256),  # the original's default, not ours
        ("task_loss_weight: 1.0", "task_loss_weight: 2", "model.losses.size_weight", 0.2),
        ("weighted_sigmoid {}", "weighted_dice_classification_loss {}",
         "model.losses.mask_loss", "dice"),
        ("use_xy: true", "jitter_mode: SHRINK max_roi_jitter_ratio: .1",
         "data.roi_jitter_mode", "shrink"),
        ("mask_size: 32", "box_consistency_loss_weight: 1 "
         "box_consistency_loss_normalize: NORMALIZE_BALANCED",
         "model.losses.box_consistency.normalization", "balanced"),
        ("use_moving_average: false", "moving_average_decay: 0.99",
         "callbacks.ema.init_args.decay", 0.99),
        ("random_adjust_hue {}", "random_rgb_to_gray {}", "data.color", False),
        ("random_horizontal_flip {}", "random_horizontal_flip { probability: .25 }",
         "data.flip", 0.25),
        ("batch_size: 128", "batch_size: 3 use_bfloat16: true gradient_clipping_by_norm: 2",
         "trainer.gradient_clip_val", 2.0),
        ("PATH_TO_BE_CONFIGURED", "/data/coco", "data.root", "/data/coco"),
        ('"hourglass_104"', '"resnet_v1_50_fpn"', "model.backbone", "resnet50"),
        ("allowed_masked_classes_ids: [1, 2,", "allowed_masked_classes_ids: [2,",
         "data.masked_classes", sorted({*VOC_IDS} - {1})),
    ],
)  # fmt: skip
def test_fields__reach_their_setting(
    tmp_path: Path, old: str, new: str, setting: str, value: Any
) -> None:
    text = OFFICIAL["voc_to_nonvoc"]
    assert old in text
    _, settings = converted(tmp_path, text.replace(old, new))
    for name in setting.split("."):
        settings = settings[name]
    assert settings == value


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "dim: 32",
            'dim: "x"',
            r"line LINE: .*deepmac_mask_estimation.dim is \"x\"; it is a whole",
        ),
        ("beta: 4.0", "beta: 4.0 alpha: 1", r"line LINE: .*alpha stands here a second time"),
        ("hourglass52", "hourglass7", r"network_type is \"hourglass7\"; known are hourglass10"),
        ("mask_size: 32", "mask_size 32", r"a missing ':' or '\{' at line LINE"),
        ("center_net {", "ssd {", "describes ssd: only CenterNet-based"),
        ("deepmac_mask_estimation {", "mask_estimation_task {", "CenterNet without masks"),
    ],
)
def test_bad_text__is_a_sentence_with_its_line(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = OFFICIAL["voc_to_nonvoc"]
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(UserError, match=words.replace("LINE", str(line))) as raised:
        converted(tmp_path, text.replace(old, new, 1))
    assert "\n" not in str(raised.value) and not (tmp_path / "conf").exists()


def test_out__is_never_overwritten_and_moves_where_it_can_run(tmp_path: Path) -> None:
    (tmp_path / "pipeline.config").write_text(OFFICIAL["coco_1024"])
    out = tmp_path / "experiment.yaml"
    convert_pipeline(tmp_path / "pipeline.config", out)
    assert "mkdir" in out.read_text() and "&& python train.py" in out.read_text()
    with pytest.raises(UserError, match="exists already"):
        convert_pipeline(tmp_path / "pipeline.config", out)
    with pytest.raises(UserError, match="no name for an experiment"):
        convert_pipeline(tmp_path / "pipeline.config", tmp_path / "folder")


def test_damaged_configs__are_refused_in_a_line_or_written(tmp_path: Path) -> None:
    fuzz_configs(OFFICIAL["voc_to_nonvoc"], 120).check()


def test_hostile_words__stay_comments(tmp_path: Path) -> None:
    text = OFFICIAL["coco_1024"].replace('"PATH_TO_BE_CONFIGURED/ckpt-51"', '"a\\nmodel: {x: 1}"')
    text = text.replace("PATH_TO_BE_CONFIGURED/train", "${oc.env:HOME}/t")
    _, settings = converted(tmp_path, text)
    ours, _ = compose(["experiment=coco_1024", "model.compat=tf_release"])
    assert settings == OmegaConf.to_container(ours)
