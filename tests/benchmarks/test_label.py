"""The label benchmark runs both sides on the same boxes and says how."""

import re

from benchmarks.label import main

from deepmac.data.shapes.data_set import write_shapes


def test_label_benchmark__prints_speed_shares_and_the_cost_of_a_box(tmp_path, capsys):
    write_shapes(tmp_path / "set", num_train=3, num_val=1, size=64)
    main(
        ["--root", str(tmp_path / "set"), "--images", "2", "--size", "64", "--repeats", "1",
         "--workers", "0", "--device", "cpu"]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "2 images with" in out and "median of 1 passes" in out
    assert len(re.findall(r"[\d.]+ images/s +[\d.]+ masks/s", out)) == 2
    shares = re.search(r"share of the work: (.*)", out)[1]
    assert [part.split()[0] for part in shares.split(", ")] == [
        "decode", "backbone", "heads", "paste", "write",
    ]  # fmt: skip
    assert "each further box" in out
