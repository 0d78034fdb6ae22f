"""Who types an old name is told the new one, in one sentence; old files are read as they are."""

import pytest
import yaml

from deepmac.errors import ConfigError
from deepmac.lightning import renamed
from deepmac.lightning.compose import compose
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.renamed import check_words, todays_file
from deepmac.lightning.systems import todays_options
from deepmac.losses import options
from deepmac.losses.options import BoxConsistency, LossOptions, SelfSupervision

NEW = {
    "model.losses.box_consistency_weight=1": "model.losses.box_consistency.weight",
    "--model.losses.self_supervision_max_translation=1": "model.losses.self_supervision.max_trans",
    "experiment=deepmarc_voc_to_nonvoc_spinenet143": "=deepmarc_voc_to_nonvoc_convnext_base",
    "mask_head=default": "mask_head=mask_rcnn",
}


@pytest.mark.parametrize("word", NEW)
def test_words__with_an_old_name_are_told_the_new_one(word):
    with pytest.raises(ConfigError) as caught:
        check_words([word])
    assert f" is now {NEW[word]}" in str(caught.value) or NEW[word] in str(caught.value)
    if not word.startswith("-"):
        with pytest.raises(ConfigError, match="is now"):
            compose([word])


@pytest.mark.parametrize("word", ["data.mask_size=32", "--data.compat=tf_release"])
def test_words__that_the_data_now_asks_the_model_for_are_told_so(word):
    with pytest.raises(ConfigError, match="leave it out, the data follows model"):
        check_words([word])


def test_weak_losses__are_those_of_the_losses():
    assert set(renamed.WEAK_LOSSES) == set(options.WEAK_LOSSES)


def test_words__with_todays_names_pass():
    check_words(["model.losses.box_consistency.weight=1", "mask_head=mask_rcnn", "debug=fdr"])


OLD_FILE = {
    "model": {
        "mask_head": "default",
        "mask_size": 28,
        "losses": {"point_supervision_weight": 0.5, "size_weight": 0.3},
    },
    "data": {"mask_size": 28, "stride": 4, "image_size": 64},
    "trainer": {
        "callbacks": [
            {
                "class_path": "deepmac.lightning.progress.Progress",
                "init_args": {"refresh_rate": 1, "line_seconds": 5.0},
            }
        ]
    },
}


def test_files__of_an_older_version_are_read_by_todays_names(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(OLD_FILE))
    today = yaml.safe_load(todays_file(path, tmp_path).read_text())
    assert today["model"] == {
        "mask_head": "mask_rcnn",
        "mask_size": 28,
        "losses": {"point_supervision": {"weight": 0.5}, "size_weight": 0.3},
    }
    assert today["data"] == {"image_size": 64}
    assert today["trainer"]["callbacks"] == [
        {
            "class_path": "deepmac.lightning.callbacks.progress.Progress",
            "init_args": {"line_seconds": 5.0},
        }
    ]
    said = capsys.readouterr().out
    assert said.startswith(f"{path} is of an older version") and said.count("\n") == 1
    assert yaml.safe_load(path.read_text()) == OLD_FILE, "the user's own stays as it is"


def test_files__whose_data_contradicts_the_model_are_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**OLD_FILE, "data": {"mask_size": 32}}))
    with pytest.raises(ConfigError, match=r"run.yaml: data.mask_size=32 contradicts model.mask"):
        todays_file(path, tmp_path)


def test_files__of_today_or_unreadable_ones_stay(tmp_path):
    for text in ("model: {mask_size: 28}", "[", ""):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        assert todays_file(path, tmp_path) == path


@pytest.mark.parametrize("spelling", [["--config", "run.yaml"], ["--config=run.yaml"]])
def test_options__name_todays_file_and_keep_the_rest(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(OLD_FILE))
    options = todays_options([*spelling, "--print_config=skip_null", "--x", "a=b"], tmp_path)
    assert "=".join(options[: len(spelling)]) == f"--config={tmp_path / 'todays_run.yaml'}"
    assert options[len(spelling) :] == ["--print_config=skip_null", "--x", "a=b"]


def test_losses__of_an_old_checkpoint_are_todays():
    old = {"box_consistency_weight": 2.0, "self_supervision_kind": "kl", "size_weight": 0.3}
    ours = LossOptions.from_dict(old)
    assert ours.box_consistency == BoxConsistency(2.0)
    assert ours.self_supervision == SelfSupervision(kind="kl")
    assert ours.size_weight == 0.3
    module = DeepMACModule(losses=old)
    assert module.hparams["losses"]["box_consistency"]["weight"] == 2.0
