"""Who uses an old name is told the new one, in one sentence; old checkpoints open as they are."""

import pytest
import yaml

from deepmac.errors import ConfigError
from deepmac.lightning import renamed
from deepmac.lightning.compose import compose
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.renamed import check_file, check_words
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


@pytest.mark.parametrize(
    ("content", "new"),
    [
        ({"model": {"losses": {"point_supervision_weight": 0.0}}}, "point_supervision.weight"),
        (
            {"trainer": {"callbacks": [{"class_path": "deepmac.lightning.pictures.Pictures"}]}},
            "deepmac.lightning.callbacks.pictures.Pictures",
        ),
        ({"model": {"mask_head": "default"}}, "mask_rcnn"),
    ],
)
def test_files__are_told_by_name_and_file(tmp_path, content, new):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=f"run.yaml.*is now.*{new}"):
        check_file(path)


def test_losses__of_an_old_checkpoint_are_todays():
    old = {"box_consistency_weight": 2.0, "self_supervision_kind": "kl", "size_weight": 0.3}
    ours = LossOptions.from_dict(old)
    assert ours.box_consistency == BoxConsistency(2.0)
    assert ours.self_supervision == SelfSupervision(kind="kl")
    assert ours.size_weight == 0.3
    module = DeepMACModule(losses=old)
    assert module.hparams["losses"]["box_consistency"]["weight"] == 2.0
