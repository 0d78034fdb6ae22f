"""Rows of ``metrics.csv`` are those of a training that was never interrupted."""

import csv

import pytest

from deepmac.errors import UserError
from deepmac.lightning.callbacks.metrics_csv import MetricsCsv


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(table, step, **values):
    table.log_metrics(values, step)


def test_rows__are_appended_and_the_header_grows(tmp_path):
    table = MetricsCsv(str(tmp_path))
    table.start()
    log(table, 0, b=1.5)
    log(table, 1, b=2.5)
    log(table, 1, a=3.0)
    assert rows(tmp_path) == [
        {"b": "1.5", "step": "0"},
        {"b": "2.5", "step": "1"},
        {"a": "3.0", "step": "1"},
    ]


@pytest.mark.parametrize("logged", [0, 1, 2], ids=["before", "after", "later"])
def test_go_on__drops_what_comes_again_and_keeps_the_pending_row(tmp_path, logged):
    table = MetricsCsv(str(tmp_path))
    table.start()
    log(table, 0, b=0.5)
    kept = table.sync()
    for step in range(1, 1 + logged):  # the kill comes before or after the pending row
        log(table, step, b=step + 0.5)
    again = MetricsCsv(str(tmp_path))
    again.go_on(kept, {"b": 1.5, "step": 1})
    log(again, 2, b=2.5)
    assert [row["b"] for row in rows(tmp_path)] == ["0.5", "1.5", "2.5"]


def test_start__begins_the_file_anew_with_its_first_row(tmp_path):
    for value in (1.0, 2.0):
        table = MetricsCsv(str(tmp_path))
        table.start()
        assert not (tmp_path / "metrics.csv").exists() or rows(tmp_path)[0]["a"] == "1.0"
        log(table, 0, a=value)
    assert [row["a"] for row in rows(tmp_path)] == ["2.0"]


def test_other_commands__leave_a_trainings_file_alone(tmp_path):
    table = MetricsCsv(str(tmp_path))
    table.start()
    log(table, 0, a=1.0)
    other = MetricsCsv(str(tmp_path))
    other.leave_alone()
    log(other, 0, a=9.0)
    assert [row["a"] for row in rows(tmp_path)] == ["1.0"]


def test_row_with_more_values_than_columns__is_told_and_the_file_left(tmp_path):
    table = MetricsCsv(str(tmp_path))
    table.start()
    log(table, 0, b=0.5)
    kept = table.sync()
    path = tmp_path / "metrics.csv"
    path.write_text(damaged := path.read_text().replace("0.5", "0.5,7,8"))
    again = MetricsCsv(str(tmp_path))
    again.go_on(kept, None)
    with pytest.raises(UserError, match="more values than there are columns"):
        log(again, 1, b=1.5)
    assert path.read_text() == damaged
