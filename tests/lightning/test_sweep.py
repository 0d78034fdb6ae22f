"""A sweep ends with a table: what was varied, what came of it, what failed."""

import json

import yaml

from deepmac.lightning.sweep import print_sweep


def run(folder, name, words, ap=None):
    (folder / name / ".hydra").mkdir(parents=True)
    (folder / name / ".hydra/overrides.yaml").write_text(yaml.safe_dump(words))
    if ap is not None:
        metrics = {"mask": {"AP": {"all": ap, "unseen": None}}}
        (folder / name / "metrics.json").write_text(json.dumps(metrics))


def test_table__shows_only_what_differs_the_best_first(tmp_path, capsys):
    run(tmp_path, "0", ["data=coco", "model.lr=1e-3"], 0.25)
    run(tmp_path, "1", ["data=coco", "model.lr=5e-4"], 0.5)
    run(tmp_path, "2", ["data=coco", "model.lr=1"])
    print_sweep(tmp_path)
    said = capsys.readouterr().out
    assert "data=coco" not in said
    assert said.index("model.lr=5e-4") < said.index("model.lr=1e-3")
    assert "50.0" in said and "1 of 3 runs have no metrics.json" in said
