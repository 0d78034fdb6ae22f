"""Protobuf's text form: what the original's configs use, and refusals that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.fuzz import fuzz_configs
from convert.pipeline_config import CONFIG
from deepmac.convert.settings import read_settings
from deepmac.errors import UserError
from deepmac.protobuf.text_proto import (
    TextProtoError,
    parse_text_proto,
    read_text_proto,
)


def test_parse__reads_every_form_of_a_field() -> None:
    message = parse_text_proto(
        r"""a: 1.5f b: -0x1F c: "x\303\251\n" 'y' d <e: FOO, f: []> [x.y.z] { g: .5 };
        h: -inf i: [{j: 1}, {j: 2}] k: true # a comment"""
    )
    assert message.scalars("a") == [1.5]
    assert message.scalars("b") == [-31]
    assert message.scalars("c") == ["xé\ny"]
    assert message.message("d").scalars("e") == ["FOO"]
    assert message.message("d").scalars("f") == []
    assert message.message("d").fields.keys() == {"e", "f"}
    assert message.messages("x.y.z")[0].scalars("g") == [0.5]
    assert message.scalars("h") == [float("-inf")]
    assert [inner.scalars("j") for inner in message.messages("i")] == [[1], [2]]
    assert message.scalars("k") == [True]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a {\n b: 1", "a missing '}' at line 2"),
        ("a: 1\n}", "a closing bracket too many at line 2"),
        ("a 1", "a missing ':' or '{' at line 1"),
        ("\n\na: }", "'}' where a value should be at line 3"),
        ("1: 2", "'1' where a field's name should be"),
        ("a: [1 2]", "a missing ',' or ']'"),
        ("a: 'x", "unexpected"),
        (r"a: '\q'", "the unknown escape"),
        ("a: 1x", "unexpected '1'"),
        ("a {" * 100, "nested too deeply"),
        (f"a: {'9' * 5000}", "a number of impossible length"),
    ],
)
def test_parse__says_what_is_wrong_and_where(text: str, complaint: str) -> None:
    with pytest.raises(TextProtoError) as caught:
        parse_text_proto(text)
    assert complaint in str(caught.value)


@given(st.text(max_size=60) | st.text("ab:{}<>[]\"'\\,;#.0x1-\n ", max_size=60))
@settings(max_examples=150, deadline=None)
def test_parse__any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_text_proto(text)
    except TextProtoError as error:
        assert "line" in str(error)


def test_read_text_proto__refuses_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.config"
    with pytest.raises(UserError, match="cannot be read"):
        read_text_proto(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text file"):
        read_text_proto(path)
    path.write_text("a: 1\n" * 300_000)
    with pytest.raises(UserError, match="more than"):
        read_text_proto(path)


def test_settings__of_an_official_config() -> None:
    found = read_settings(parse_text_proto(CONFIG))
    assert found.backbone == "hourglass_104"
    assert (found.num_classes, found.image_size) == (90, 1024)
    assert found.normalization.bgr
    assert found.normalization.mean == (119.9165958, 114.03422265, 104.01362025)
    assert found.masked_ids == (1, 2, 3, 72)
    assert found.network == {
        "max_detections": 50,
        "mask_head": "hourglass100",
        "num_init_channels": 64,
        "mask_size": 32,
        "pixel_embedding_dim": 16,
        "dim": 32,
        "use_xy": True,
        "use_instance_embedding": True,
        "predict_full_resolution_masks": False,
        "postprocess_crop_size": 256,
    }


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("center_net", "faster_rcnn", "describes no center_net model"),
        ("hourglass_104", "resnet_v2_101", "the feature extractor 'resnet_v2_101'"),
        ("hourglass100", "hourglass77", "the mask head 'hourglass77'"),
        ("min_dimension: 1024", "min_dimension: 800", "does not pad images to a square"),
        ("keep_aspect_ratio_resizer", "fixed_shape_resizer", "no keep_aspect_ratio_resizer"),
        ("num_classes: 90", "", "does not say num_classes"),
        ("num_classes: 90", "num_classes: 'x'", "num_classes in the pipeline config must be"),
        ("dim: 32 ", "dim: 99999999 ", "dim in the pipeline config is 99999999"),
        ("70.9150767", "0", "channel_stds of the pipeline config must be three numbers"),
        ("70.9150767", "", "channel_stds"),
    ],
)
def test_settings__refuse_what_has_no_counterpart(before: str, after: str, complaint: str) -> None:
    text = CONFIG.replace(before, after)
    if after == "" and before == "70.9150767":
        text = CONFIG.replace(", 70.9150767", "")
    with pytest.raises(UserError, match=complaint):
        read_settings(parse_text_proto(text))


def test_config__mutations_are_refused_or_read() -> None:
    fuzz_configs(CONFIG, 300).check()
