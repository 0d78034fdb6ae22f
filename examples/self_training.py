"""Masks for some classes, boxes for all: the rows of docs/partial_supervision.md, seed by seed.

    python examples/self_training.py --root COCO --out runs/self_training --seeds 0 1 2

``--root`` holds ``annotations/instances_{train,val}.json`` with masks of every class. Those of the
60 non-VOC classes (``--split nonvoc_to_voc``: of the 20 VOC classes) are taken out of the training
json first; the evaluation keeps them. Then, for each seed and at equal steps:

    partial        masks of some classes, boxes of all (the paper's recipe)
    weak           + projections and colours of the objects that have boxes alone
    self_training  + masks that `weak` gives to these objects, calibrated on the validation masks of
                   the classes that have masks, and weighted by the IoU to expect of them
    averaged_teacher
                   `weak` + masks that the average of the run's own weights gives while it trains:
                   no teacher before it, and no labelling
    second_round   the third row with masks that `self_training` gives; if asked for

Each step is a command that is printed and skipped where its result is there already.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from deepmac.data.splits import VOC_NAMES

EXPERIMENT = "voc_to_nonvoc_self_training_small"
NO_WEAK = ("model.losses.box_consistency.weight=0", "model.losses.color_consistency.weight=0")
SPLITS = ("voc_to_nonvoc", "nonvoc_to_voc")
ROWS = ("partial", "weak", "averaged_teacher", "self_training", "second_round")


def keep_masks(source: Path, out: Path, split: str, *, drop_objects: bool = False) -> Path:
    """A copy of a COCO json without the masks (or the objects) of classes that have none."""
    content = json.loads(source.read_text(encoding="utf-8"))
    of_voc = split == "voc_to_nonvoc"
    masked = {c["id"] for c in content["categories"] if (c["name"] in VOC_NAMES) == of_voc}
    kept = []
    for entry in content["annotations"]:
        if entry["category_id"] in masked:
            kept.append(entry)
        elif not drop_objects and not entry.get("iscrowd"):
            kept.append({k: v for k, v in entry.items() if k != "segmentation"})
    content["annotations"] = kept
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content), encoding="utf-8")
    return out


def run(command: list[str], result: Path) -> None:
    """Run a command unless what it makes is there."""
    print(" ".join(command), flush=True)
    if result.exists():
        print(f"  {result} is there", flush=True)
        return
    subprocess.run(command, check=True)


def train(row: str, seed: int, root: Path, train_json: Path, out: Path, extra: list[str]) -> Path:
    """Train one row; gives its run directory."""
    folder = out / f"{row}_{seed}"
    words = {
        "partial": [*NO_WEAK, "data.model_masks=ignore"],
        "weak": ["data.model_masks=ignore"],
        "averaged_teacher": ["data.model_masks=ignore", "callbacks=averaged_teacher"],
        "self_training": [],
        "second_round": [],
    }[row]
    command = [
        *("deepmac", "fit", f"experiment={EXPERIMENT}", f"data.root={root}"),
        *(f"data.train_json={train_json}", f"hydra.run.dir={folder}"),
        *(f"seed_everything={seed}", f"data.seed={seed}", *words, *extra),
    ]
    run(command, folder / "metrics.json")
    return folder


def label(teacher: Path, root: Path, train_json: Path, known_val: Path, out: Path) -> Path:
    """The training boxes with the teacher's best masks and the IoU to expect of each."""
    common = ["deepmac", "label", "--model", str(teacher), "--images", str(root / "images")]
    common += ["--refine", "full"]  # a teacher may take its time, and has more to teach then
    calibration = out.with_suffix(".calibration.json")
    run([*common, "--calibrate", str(known_val), "--out", str(calibration)], calibration)
    labelling = ["--boxes", str(train_json), "--calibration", str(calibration), "--out", str(out)]
    run([*common, *labelling], out)
    return out


def table(out: Path, seeds: list[int]) -> str:
    """Markdown: IoU and boundary IoU in true boxes of never-masked classes, mean and spread."""
    lines = ["| row | seeds | mIoU, never masked | boundary IoU, never masked | mIoU, masked |"]
    lines.append("|---|---|---|---|---|")
    for row in ROWS:
        found = [out / f"{row}_{seed}" / "metrics.json" for seed in seeds]
        read = [json.loads(f.read_text())["mask_gt_box"] for f in found if f.is_file()]
        cells = []
        for metric, group in (("mIoU", "unseen"), ("boundary_IoU", "unseen"), ("mIoU", "seen")):
            values = np.array([one[metric][group] for one in read], dtype=float)
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
        lines.append(f"| {row} | {len(read)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/self_training"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0])
    parser.add_argument("--second-round", action="store_true")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="KEY=VALUE ...")
    given = parser.parse_args()
    root, out = given.root.resolve(), given.out.resolve()
    annotations = root / "annotations"
    partial = keep_masks(annotations / "instances_train.json", out / "partial.json", given.split)
    known_val = keep_masks(
        annotations / "instances_val.json", out / "known_val.json", given.split, drop_objects=True
    )
    settings = [f"split={given.split}", *given.settings]
    for seed in given.seeds:
        train("partial", seed, root, partial, out, settings)
        teacher = train("weak", seed, root, partial, out, settings)
        train("averaged_teacher", seed, root, partial, out, settings)
        for row in ROWS[3:] if given.second_round else ROWS[3:4]:
            masks = out / f"{teacher.name}.json"
            labelled = label(teacher / "weights", root, partial, known_val, masks)
            teacher = train(row, seed, root, labelled, out, settings)
        print(table(out, given.seeds), flush=True)


if __name__ == "__main__":
    sys.exit(main())
