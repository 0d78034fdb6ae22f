"""The benchmark that lowers a whole step without running it (seconds)."""

import os
import subprocess
import sys

CASE = """
import os
os.environ["XLA_ALWAYS_ALLREDUCE"] = "1"
import torch
from torch.utils.flop_counter import FlopCounterMode
from benchmarks.tpu_step import _batch, count_step
from deepmac.lightning.compose import compose, lightning_config
from deepmac.lightning.xla import device as xla

words = ["experiment=voc_to_nonvoc", "trainer=tpu_pod", "backbone=hourglass_10",
         "mask_head=hourglass10", "data.image_size=64", "data.max_boxes=17",
         "model.crop_impl=separable"]
# With at most a box for 16 cells, a CPU runs heads around the boxes' centres alone.
settings = lightning_config(compose(words)[0])
graph, operations, _ = count_step(settings, 2)
compiles = xla.metrics().get("CompileTime", 0)
assert compiles <= 1, compiles   # the moments' zeros
from deepmac.class_map import ClassMap
from deepmac.lightning.deepmac_module import DeepMACModule
module = DeepMACModule(**settings["model"])
module.build(ClassMap(tuple(range(80)), tuple(map(str, range(80))), frozenset(range(20))))
assert graph.parameters == sum(p.numel() for p in module.parameters())
module._trainer = type("Trainer", (), {"global_step": 0})()
batch = _batch(settings, 2)
batch["valid"][:] = batch["mask_valid"][:] = True   # a CPU leaves the other rows out
with FlopCounterMode(display=False) as counter:
    module.train().compute_losses(batch)["loss"].backward()
expected = counter.get_total_flops()
assert abs(graph.flops / expected - 1) < 0.01, (graph.flops, expected)
assert operations["all-reduce"] == graph.reductions > 100
assert graph.least_activations < graph.most_activations
"""


def test_step__is_counted_as_torchs_own_counter_counts_it_and_never_run():
    done = subprocess.run(
        [sys.executable, "-c", CASE],
        env={**os.environ, "PJRT_DEVICE": "CPU", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
