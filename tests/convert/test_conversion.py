"""A conversion is whole or it did not happen, and its report accounts for every tensor."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from deepmac.convert import ConversionError, command, convert, convert_variables
from deepmac.convert.labels import class_map_of
from deepmac.errors import UserError
from deepmac.models.files import card_of, load_model

Writer = Callable[..., Path]
Arrays = dict[str, np.ndarray]
MODELS = Path(__file__).parents[1] / "reference" / "fixtures" / "model"


def fixture(name: str) -> tuple[Arrays, str]:
    with np.load(MODELS / f"{name}_weights.npz") as weights:
        arrays = {key.removeprefix("w::"): weights[key] for key in weights.files}
    with np.load(MODELS / f"{name}_io.npz") as answers:
        return arrays, str(answers["config"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, write_bundle: Writer) -> Path:
    """A folder laid out like the published one."""
    folder = tmp_path_factory.mktemp("exported")
    arrays, config = fixture("rel_tiny2")
    write_bundle(folder / "checkpoint" / "ckpt-0", arrays | {"save_counter": np.array(1)})
    (folder / "pipeline.config").write_text(f"model {{ {config} }}")
    (folder / "saved_model" / "variables").mkdir(parents=True)
    (folder / "saved_model" / "variables" / "variables.index").write_bytes(b"other")
    return folder


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_convert__gives_a_model_that_loads(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    report = convert(exported, out)
    assert not report.missing and not report.unused
    assert report.output == out
    assert left_over(out) == ["config.yaml", "model.safetensors"]
    assert left_over(out.parent) == ["model"]
    model = load_model(out)
    assert not model.training
    expected = convert_variables(fixture("rel_tiny2")[0])
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    card = card_of(model)
    assert card is not None
    assert card.image_size == 64
    assert card.class_map.category_ids == tuple(range(1, 11))
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["network"]["compat"] == "tf_release"
    assert config["network"]["backbone"] == "hourglass_tiny2"


def test_convert__accepts_prefix_and_index(exported: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("ckpt-0", "ckpt-0.index")):
        assert convert(exported / "checkpoint" / name, tmp_path / str(i)).kind == "model"


def test_convert__reads_a_tarball(exported: Path, tmp_path: Path) -> None:
    archive = tmp_path / "deepmac.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(exported, "deepmac_64")
    assert not convert(archive, tmp_path / "out").missing
    assert left_over(tmp_path) == ["deepmac.tar.gz", "out"]


def test_convert__a_tarball_writes_nowhere_else(exported: Path, tmp_path: Path) -> None:
    archive = tmp_path / "inner" / "hostile.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        for name in ("../pipeline.config", "/../../ckpt-9.index", "x/../../ckpt-9.index"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"a:1"))
        link = tarfile.TarInfo("checkpoint/ckpt-0.index")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match=r"several files ckpt-9\.index"):
        convert(archive, tmp_path / "out")
    assert left_over(tmp_path) == ["inner"]


def test_convert__a_damaged_or_bloated_tarball_is_refused(exported: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(exported, "model")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        convert(archive, tmp_path / "out")
    archive.write_bytes(b"no archive at all" * 100)
    with pytest.raises(UserError, match="cannot be unpacked"):
        convert(archive, tmp_path / "out")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo("checkpoint/ckpt-0.data-00000-of-00001")
        member.size = 1 << 28
        tar.addfile(member, open("/dev/zero", "rb"))  # noqa: SIM115
    with pytest.raises(UserError, match="far more than its size"):
        convert(archive, tmp_path / "out")
    assert left_over(tmp_path) == ["a.tar.gz"]


def test_convert__missing_variables_are_all_named_and_nothing_is_written(
    tmp_path: Path, write_bundle: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, config = fixture("tiny2")
    del arrays["model/_mask_net/project_out/bias"]
    arrays["model/_mask_net/project_out/kernel"] = np.zeros((1, 1, 7, 1), dtype=np.float32)
    arrays["model/_something_else/kernel"] = np.zeros((2, 3), dtype=np.float32)
    prefix = write_bundle(tmp_path / "source" / "ckpt-0", arrays)
    (tmp_path / "source" / "pipeline.config").write_text(config)
    with pytest.raises(ConversionError, match=r"lacks 2 tensors .*nothing was written"):
        convert(prefix.parent, tmp_path / "out")
    assert command([str(prefix.parent), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "2 of the network missing in the source:" in printed
    assert "mask_head.project_out.bias 1\n" in printed
    assert "2 of the source without use:" in printed
    assert "mask_head.project_out.weight 1x7x1x1" in printed
    assert "model/_something_else/kernel 2x3" in printed
    assert left_over(tmp_path) == ["source"]


def test_convert__optimizer_state_is_left_out(tmp_path: Path, write_bundle: Writer) -> None:
    arrays, config = fixture("tiny2")
    slots = {f"{key}/.OPTIMIZER_SLOT/optimizer/m": value for key, value in list(arrays.items())[:5]}
    prefix = write_bundle(tmp_path / "source" / "ckpt-3", arrays | slots | {"step": np.array(5)})
    (tmp_path / "source" / "pipeline.config").write_text(config)
    report = convert(prefix.parent, tmp_path / "out")
    assert not report.missing and not report.unused
    assert load_model(tmp_path / "out").conventions.compat == "tf_latest"


def test_convert__never_touches_what_exists(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert(exported, out)  # empty: fine
    before = (out / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match="already exists"):
        convert(exported, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_convert__a_full_disk_leaves_nothing_behind(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepmac.convert.conversion.write_model", full)
    with pytest.raises(UserError, match="No space left on device"):
        convert(exported, tmp_path / "out")
    assert left_over(tmp_path) == []


def test_convert__a_backbone_alone_is_an_initialisation(
    tmp_path: Path, write_bundle: Writer
) -> None:
    arrays = {k: v for k, v in fixture("tiny2")[0].items() if "_feature_extractor" in k}
    prefix = write_bundle(tmp_path / "ckpt-1", arrays)
    report = convert(prefix, tmp_path / "out")
    assert report.kind == "initialisation"
    assert report.settings["backbone"] == "hourglass_tiny2"
    assert "model.init_from=" in str(report)
    with pytest.raises(UserError, match=r"does not describe a model|start a training"):
        load_model(tmp_path / "out")
    older = {k.replace("model/_feature", "model/feature"): v for k, v in arrays.items()}
    again = convert(write_bundle(tmp_path / "ckpt-2", older), tmp_path / "again")
    assert list(again.matched) == list(report.matched)


def test_convert__deepmac_without_its_config_asks_for_it(
    tmp_path: Path, write_bundle: Writer
) -> None:
    prefix = write_bundle(tmp_path / "ckpt-1", fixture("tiny2")[0])
    with pytest.raises(UserError, match=r"without its pipeline\.config: give --config"):
        convert(prefix, tmp_path / "out")
    config = tmp_path / "elsewhere.config"
    config.write_text(fixture("tiny2")[1])
    assert convert(prefix, tmp_path / "out", config).kind == "model"


def test_convert__of_two_checkpoints_takes_the_one_that_is_named(
    tmp_path: Path, write_bundle: Writer
) -> None:
    arrays, config = fixture("tiny2")
    for i in (1, 2):
        write_bundle(tmp_path / "in" / f"ckpt-{i}", arrays)
    (tmp_path / "in" / "pipeline.config").write_text(config)
    with pytest.raises(UserError, match=r"holds 2 checkpoints \(ckpt-1, ckpt-2\)"):
        convert(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "checkpoint").write_text('model_checkpoint_path: "/old/place/ckpt-2"')
    assert not convert(tmp_path / "in", tmp_path / "out").missing


def test_convert__sources_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkpoint"):
        convert(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UserError, match="holds no checkpoint"):
        convert(tmp_path, tmp_path / "out")


def test_class_map__is_coco_by_default_and_a_label_map_on_request(tmp_path: Path) -> None:
    coco = class_map_of(90, (1, 72))
    assert coco.category_ids[:2] == (1, 2)
    assert [coco.names[i - 1] for i in (1, 12, 13, 62, 72, 90)] == [
        "person",
        "unused 12",
        "stop sign",
        "chair",
        "tv",
        "toothbrush",
    ]
    assert coco.masked_category_ids == {1, 72}
    path = tmp_path / "labels.pbtxt"
    path.write_text("item { id: 2 name: '/m/2' display_name: 'dog' } item { id: 3 name: 'cat' }")
    own = class_map_of(3, (), path)
    assert own.names == ("unused 1", "dog", "cat")
    assert own.masked_category_ids == {2, 3}
    with pytest.raises(UserError, match="names class 3, but the network has the classes 1 to 2"):
        class_map_of(2, (), path)
