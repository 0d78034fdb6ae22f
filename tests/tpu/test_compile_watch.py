"""What a run on XLA says of its own compiling (about a minute on one core)."""

import csv
import re

import pytest

SHAPES = (
    "trainer=tpu",
    "trainer.precision=32-true",
    "data.shapes_train=20",
    "data.shapes_val=4",
    "data.shapes_size=64",
    "trainer.check_val_every_n_epoch=2",
)


def compiles(run):
    return [line["compiles"] for line in run.noted("train")]


@pytest.fixture(scope="module")
def careful(run, tmp_path_factory):
    """Two epochs of five steps."""
    folder = tmp_path_factory.mktemp("graphs")
    words = (*SHAPES, "trainer.max_epochs=2", f"trainer.strategy.init_args.cache_dir={folder}")
    finished = run("careful", "fit", *words).finish()
    finished.graphs = folder
    return finished


@pytest.fixture(scope="module")
def careless(run):
    """Steps that leave the device, and no warm-up."""
    return run(
        "careless",
        "fit",
        *SHAPES,
        "trainer.max_epochs=2",
        "callbacks.compile_watch.init_args.warm_up=false",
        "callbacks.evaluate=null",
        "+callbacks.careless.class_path=careless.Careless",
    ).finish()


def test_run__says_what_it_compiles_and_when_it_is_warm(careful):
    said = careful.said
    assert re.search(r"XLA: evaluation step compiled: \d+ graph\(s\) compiled in [\d.]+ s", said)
    assert re.search(r"XLA: the evaluation step is warm after [\d.]+ s", said)
    assert said.index("compiling the evaluation step") < said.index("compiling the training step")
    assert re.search(r"XLA: the training step is warm after [\d.]+ s", said)
    assert re.search(r"XLA: \d+ graph\(s\) compiled in .* 10 training steps", said)


def test_run_without_mistakes__is_warned_of_nothing(careful):
    assert "left the device" not in careful.said
    assert "was like it" not in careful.said


def test_warm_up__makes_the_second_step_the_graph_of_the_first(careful, careless):
    warm, cold = compiles(careful), compiles(careless)
    assert warm[1] == warm[0]
    assert cold[1] == cold[0] + 1


def test_counts__go_to_the_loggers(careful):
    with (careful.folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("xla/compiles")]
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7, 9]
    assert float(rows[-1]["xla/compile_seconds"]) > 0
    assert {row["xla/on_host"] for row in rows} == {rows[0]["xla/on_host"]}


def test_cache__holds_a_file_for_each_graph(careful):
    assert len(list((careful.graphs / "process_0").iterdir())) == compiles(careful)[-1]


def test_mistakes__are_told_once_each_by_the_operators_name(careless):
    warnings = [line for line in careless.said.splitlines() if "left the device" in line]
    assert [re.search(r"\w+::\w+", line)[0] for line in warnings] == [
        "aten::nonzero",
        "aten::_local_scalar_dense",
    ]
    assert "training step 6" in warnings[0] and "training step 8" in warnings[1]
    assert ".item()" in warnings[1]
    (again,) = [line for line in careless.said.splitlines() if "was like it" in line]
    assert "training step 6 compiled" in again and "aten::nonzero" in again
