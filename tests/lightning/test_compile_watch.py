"""What is told about XLA's counters; the counting itself is tested in tests/tpu."""

import torch

from deepmac.lightning.xla.compile_counts import READING, Counts, Expectations, Step, shapes_of
from deepmac.lightning.xla.compile_watch import CompileWatch

PLAIN = {"xla::convolution_overrideable": 4, "xla::add": 2}


def step(number, kind="plain", **fields):
    return Step(kind, f"training step {number}", **fields)


def counts(compiles=0, seconds=0.0, **operators):
    named = {name.replace("__", "::", 1): count for name, count in operators.items()}
    return Counts(compiles=compiles, seconds=seconds, operators={**PLAIN, **named})


def test_counts__are_differences_of_torch_xlas_metrics():
    before = {"CompileTime": 2, "CompileTime.total": 10**9, "aten::nonzero": 1, "xla::add": 3}
    after = {
        "CompileTime": 3,
        "CompileTime.total": 4 * 10**9,
        "TransferFromDeviceTime": 5,
        "PersistentCacheHit": 1,
        "aten::nonzero": 1,
        "torchvision::nms": 2,
        "xla::add": 9,
    }
    found = Counts.of(after) - Counts.of(before)
    assert (found.compiles, found.seconds, found.to_host, found.from_cache) == (1, 3.0, 5, 1)
    assert found.operators == {"torchvision::nms": 2, "xla::add": 6}
    assert found.on_host == {"torchvision::nms": 2}


def test_first_step_of_a_kind__may_compile():
    expectations = Expectations()
    assert not expectations.findings(step(0, "first"), counts(compiles=3))
    assert not expectations.findings(step(1), counts(compiles=1))
    assert not expectations.findings(step(2), counts())


def test_recompilation__is_told_once_with_the_shapes_that_changed():
    expectations = Expectations()
    shapes = {"images": (4, 3, 64, 64), "boxes": (4, 6, 4)}
    expectations.findings(step(3, shapes=shapes), counts(compiles=1))
    other = {**shapes, "boxes": (4, 9, 4)}
    (sentence,) = expectations.findings(step(4, shapes=other), counts(compiles=1, seconds=41.26))
    assert "training step 4 compiled 1 more graph(s) in 41.3 s" in sentence
    assert "training step 3 was like it" in sentence
    assert "boxes (4, 6, 4) -> (4, 9, 4)" in sentence and "images" not in sentence
    assert not expectations.findings(step(5, shapes=shapes), counts(compiles=1))


def test_recompilation__names_the_operators_that_differ():
    expectations = Expectations()
    expectations.findings(step(3), counts(compiles=1))
    (sentence,) = expectations.findings(step(4), counts(compiles=1, xla__index_select=2))
    assert "xla::index_select 0 -> 2" in sentence


def test_operator_on_the_host__is_told_once_by_name_from_the_very_first_step():
    expectations = Expectations()
    (sentence,) = expectations.findings(step(0), counts(compiles=1, torchvision__nms=3))
    assert "torchvision::nms left the device 3 time(s) in training step 0" in sentence
    assert not expectations.findings(step(1), counts(torchvision__nms=3))
    (other,) = expectations.findings(step(2), counts(aten__nonzero=1))
    assert "aten::nonzero" in other


def test_recompilation_by_an_operator_on_the_host__names_it():
    expectations = Expectations()
    expectations.findings(step(3), counts(aten__nonzero=1))
    (sentence,) = expectations.findings(step(4), counts(compiles=2, aten__nonzero=1))
    assert "aten::nonzero on the host" in sentence


def test_reading_a_value__is_right_where_values_are_looked_at_and_nowhere_else():
    assert READING == "aten::_local_scalar_dense"
    expectations = Expectations()
    read = {"aten___local_scalar_dense": 1}
    assert not expectations.findings(step(9, "logs", reads=True), counts(**read))
    (sentence,) = expectations.findings(step(10), counts(**read))
    assert ".item()" in sentence


def test_shapes__are_those_of_the_batchs_tensors():
    batch = {"boxes": torch.zeros(2, 5, 4), "names": ["a"]}
    assert shapes_of(batch) == {"boxes": (2, 5, 4)}
    assert shapes_of([1]) == {}


def test_off_xla__nothing_is_watched(capsys):
    import pytorch_lightning as pl

    watch = CompileWatch()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    watch.setup(trainer, None, "fit")
    watch.on_train_start(trainer, None)
    watch.on_train_batch_start(trainer, None, {}, 0)
    watch.on_train_batch_end(trainer, None, None, {}, 0)
    watch.on_train_end(trainer, None)
    assert "XLA" not in capsys.readouterr().out
