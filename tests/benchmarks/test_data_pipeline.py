"""The data benchmark compares like with like and prints how."""

from benchmarks.data_pipeline import PlainInstances, main

from deepmac.data.annotations.coco import read_coco


def test_data_benchmark__runs_and_says_how_it_measured(shared, capsys):
    main(
        ["--root", str(shared / "coco_mini"), "--split", "val", "--images", "4", "--size", "128",
         "--workers", "0", "--repeats", "1"]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "4 images" in out and "median of 1 passes" in out and "in process" in out


def test_plain_side__does_the_same_work(shared):
    folder = shared / "coco_mini"
    index = read_coco(
        folder / "annotations" / "instances_val.json", folder / "images", check_images="none"
    )
    sample = PlainInstances(index, 128)[(0, 1)]
    assert sample["images"].shape == (3, 128, 128)
    assert sample["mask_targets"].shape == (len(sample["boxes"]), 32, 32)
