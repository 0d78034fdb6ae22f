"""``deepmac settings``: what there is to choose from, one's own tree included."""

import re

import pytest

from deepmac.cli import main
from deepmac.lightning.compose import compose, config_tree

GROUPS = sorted(path.name for path in config_tree().iterdir() if path.is_dir())


@pytest.fixture
def own_tree(tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\n# Mine alone.\ndefaults:\n  - custom\nmodel:\n  lr: 0.125\n"
    (tmp_path / "conf/experiment/mine.yaml").write_text(text)
    return tmp_path / "conf"


def test_groups__are_all_listed_with_what_they_are(capsys):
    assert main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group in set(GROUPS) - {"system", "study"}:
        (line,) = [line for line in lines if line.startswith(f"{group} ")]
        assert len(line.split()) > 3, line


@pytest.mark.parametrize("group", sorted(set(GROUPS) - {"system", "study"}))
def test_choices__of_every_group_say_what_they_are(group, capsys):
    assert main(["settings", group]) == 0
    said = capsys.readouterr().out
    for path in (config_tree() / group).glob("*.yaml"):
        assert re.search(rf"^{group}={path.stem} +\S", said, re.MULTILINE), path.stem


def test_one_choice__is_shown(capsys):
    assert main(["settings", "experiment=voc_to_nonvoc"]) == 0
    assert "32.5 mask AP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["backbones"], "did you mean backbone?"),
        (["mask_head=hourglas52"], "did you mean hourglass52?"),
        (["data", "--config-dir=/nowhere/at/all"], "no such folder"),
    ],
)
def test_unknown_ones__are_one_sentence(words, answer, capsys):
    assert main(["settings", *words]) == 1
    assert answer in capsys.readouterr().err


def test_own_tree__is_found_beside_ours(own_tree, capsys):
    config, _ = compose(["experiment=mine", "data.root=/data"], [own_tree])
    assert (config.model.lr, config.data.source) == (0.125, "coco")
    assert main(["settings", "experiment", "--config-dir", str(own_tree)]) == 0
    assert "Mine alone." in capsys.readouterr().out
    words = ["fit", "--config-dir", str(own_tree), "experiment=mine", "--print_config"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "lr: 0.125" in capsys.readouterr().out
