"""What single tests run in a process of their own."""

import os
import sys

import torch

from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.xla import device as xla
from networks import CLASSES, TINY, tiny_network


def left_the_device():
    names = ("aten::", "torchvision::")
    return {name: n for name, n in xla.metrics().items() if name.startswith(names)}


def tiny_module(**changes):
    torch.manual_seed(0)
    module = DeepMACModule(**{**TINY["deepmac"], "mask_head": "resnet4", **changes})
    module.build(CLASSES)
    # What a trainer would have told it.
    module._trainer = type("Trainer", (), {"global_step": 3})()
    return module.train()


def batch(images=4, slots=6, side=64):
    drawn = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.rand(*shape, generator=drawn)

    corner, size = random(images, slots, 2) * 40, random(images, slots, 2) * 20 + 3
    valid = random(images, slots) < 0.6
    boxes = torch.cat([corner, corner + size], dim=-1) * valid[..., None]
    return {
        "images": (random(images, 3, side, side) * 255).to(torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.randint(0, 3, (images, slots), generator=drawn),
        "valid": valid,
        "mask_valid": valid & (random(images, slots) < 0.5),
        "mask_targets": (random(images, slots, 32, 32) < 0.5).float(),
        "true_sizes": torch.full((images, 2), side),
        "ignore": torch.zeros(images, side // 4, side // 4, dtype=torch.bool),
        "image_ids": torch.arange(images),
    }


def on_device(tensors):
    return {name: value.to(xla.device()) for name, value in tensors.items()}


def every_mask_head_stays_on_the_device():
    from deepmac.nn.mask_heads import MASK_HEADS

    for name in MASK_HEADS:
        reads = name.startswith(("cond_inst", "embedding"))
        # With six pixel embeddings and two coordinates, all heads can be eight channels wide.
        dims = {"cond_inst1": 9, "cond_inst2": 81, "cond_inst3": 153, "embedding_projection": 8}
        module = tiny_module(
            mask_head=name,
            num_init_channels=8,
            pixel_embedding_dim=6,
            dim=dims.get(name, 4),
            use_instance_embedding=not reads,
        )
        losses = module.to(xla.device()).compute_losses(on_device(batch()))
        losses["loss"].backward()
        assert all(p.grad is not None for p in module.network.mask_head.parameters()), name
        assert not left_the_device(), (name, left_the_device())
        assert "CompileTime" not in xla.metrics(), name


def a_narrow_hourglass_104_and_all_weak_losses_stay_on_the_device():
    from dataclasses import replace

    from deepmac.nn.hourglass import HOURGLASS_BACKBONES, HourglassNetwork

    losses = {
        "ignore_class_overlap": True,
        "box_consistency": {"weight": 1.0, "tightness": True},
        "color_consistency": {"weight": 1.0, "warmup_steps": 10},
        "self_supervision": {"weight": 1.0, "max_translation": 0.1, "flip_probability": 0.5},
    }
    module = tiny_module(losses=losses)
    module.to(xla.device()).compute_losses(on_device(batch()))["loss"].backward()
    assert not left_the_device(), left_the_device()
    spec = HOURGLASS_BACKBONES["hourglass_104"]
    spec = replace(spec, input_channels=4, channels=tuple(n // 32 for n in spec.channels))
    network = HourglassNetwork(in_channels=3, spec=spec).to(xla.device())
    total = sum(o.square().mean() for o in network(torch.zeros(2, 3, 128, 128).to(xla.device())))
    total.backward()
    assert not left_the_device(), left_the_device()


def recomputed_activations_give_the_same_step():
    from deepmac.nn.replicas import Replicas, share

    def step(module, content):
        losses = module.compute_losses(content)
        losses["loss"].backward()
        return losses["loss"]

    xla.device()
    kept = tiny_module(crop_impl="separable").double()
    expected = step(kept, batch())
    saving = tiny_module(checkpoint_activations=True).double().to(xla.device())
    share(saving, Replicas(recompute=xla.recompute))
    found = step(saving, on_device(batch()))
    xla.sync()
    assert not left_the_device(), left_the_device()
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=0)
    largest = max(p.grad.abs().max() for p in kept.parameters())
    for (name, ours), theirs in zip(saving.named_parameters(), kept.parameters(), strict=True):
        assert (ours.grad.cpu() - theirs.grad).abs().max() <= 1e-6 * largest, name
    for (name, ours), theirs in zip(saving.named_buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-6, atol=1e-8, msg=name)
    compiles = []
    for _ in range(3):
        saving.zero_grad()
        step(saving, on_device(batch()))
        xla.sync()
        compiles.append(xla.metrics()["CompileTime"])
    assert compiles[1] == compiles[2], compiles


def deepmarc_masks_of_given_boxes_stay_on_the_device():
    network = tiny_network("deepmarc", class_agnostic=True)
    content = batch()
    boxes, valid = content["boxes"], content["valid"]

    def masks(images, boxes, valid):
        with torch.no_grad():
            return network.mask_probabilities(network(images)[-1], boxes, valid)

    expected = masks(content["images"], boxes, valid)
    network.to(xla.device())
    moved = on_device(content)
    found = masks(moved["images"], moved["boxes"], moved["valid"])
    xla.sync()
    assert not left_the_device(), left_the_device()
    torch.testing.assert_close(found.cpu()[valid], expected[valid], rtol=1e-4, atol=1e-5)


def bfloat16_is_for_products_alone():
    from deepmac.lightning.xla.strategies import XLAMixedPrecision

    module, exact = tiny_module(), tiny_module()
    expected = exact.to(xla.device()).compute_losses(on_device(batch()))
    module.to(xla.device())
    with XLAMixedPrecision().forward_context():
        stages = module.network(on_device(batch())["images"])
        losses = module.compute_losses(on_device(batch()))
    assert stages[-1].heatmap.dtype == torch.bfloat16
    assert {value.dtype for value in losses.values()} == {torch.float32}
    losses["loss"].backward()
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}
    assert {b.dtype for b in module.buffers()} == {torch.float32}
    xla.sync()
    assert not left_the_device(), left_the_device()
    for name in losses:
        torch.testing.assert_close(losses[name].cpu(), expected[name].cpu(), rtol=0.05, atol=0.05)


def batch_norm_statistics_are_those_of_other_devices():
    """torch_xla's own kernel keeps the biased variance."""
    from deepmac.nn.norm import BatchNorm2d, NormOptions

    for options in (NormOptions(), NormOptions(momentum=0.9, biased_running_var=True)):
        for dtype in (torch.float32, torch.bfloat16):
            for valid in (None, torch.tensor([True, False, True, True])):
                x = (torch.randn(4, 3, 2, 2) * 3 + 10).to(dtype)
                here, there = BatchNorm2d(3, options), BatchNorm2d(3, options).to(xla.device())
                here(x, valid)
                there(x.to(xla.device()), None if valid is None else valid.to(xla.device()))
                for name in ("running_mean", "running_var"):
                    theirs = getattr(there, name).cpu()
                    torch.testing.assert_close(theirs, getattr(here, name), rtol=1e-4, atol=1e-5)


def collectives_work_at_world_size_one():
    values = torch.tensor([1.0, 2.0]).to(xla.device()).requires_grad_()
    total = xla.all_reduce_sum(values * 2)
    (total * torch.tensor([3.0, 4.0]).to(xla.device())).sum().backward()
    assert total.tolist() == [2.0, 4.0]
    assert values.grad.tolist() == [6.0, 8.0]
    long = os.urandom(3_000_001)
    for payload in (b"", b"x", long):
        assert xla.gather_bytes(payload) == [payload]


def a_loader_that_fails_fails_where_the_batch_is_asked_for():
    from torch.utils.data import DataLoader

    from deepmac.lightning.xla.strategies import DeviceLoader

    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            if index == 4:
                raise ValueError("image 4 is broken")
            return torch.tensor(index)

    loader = DeviceLoader(DataLoader(Broken(), batch_size=2), xla.device())
    assert len(loader) == 3
    seen = []
    for _ in range(2):
        try:
            for item in loader:
                assert item.device.type == "xla"
                seen += item.tolist()
        except ValueError as error:
            assert "image 4 is broken" in str(error)
        else:
            sys.exit("no error came")
    assert seen == [0, 1, 2, 3] * 2


def reports_keep_the_first_bad_step_until_somebody_looks():
    from deepmac.lightning.xla.step_report import StepReport

    report = StepReport(1, xla.all_reduce_sum)
    compiles = []
    looks = []
    for step, value in enumerate([1.0, 2.0, float("nan"), float("inf"), 5.0, 6.0, 7.0, 8.0]):
        loss = torch.tensor([value, 0.0]).to(xla.device())[0]
        ids = torch.tensor([10 * step, 10 * step + 1]).to(xla.device())
        report.add({"loss": loss, "mask": loss * 2}, ids, stop=step == 6)
        if step % 4 == 3:
            tensors = report.tensors()
            xla.sync()
            looks.append(report.read(*(t.cpu() for t in tensors)))
        xla.sync()
        compiles.append(xla.metrics()["CompileTime"])
    bad, good = looks
    assert bad.any_bad and bad.bad_images == [20, 21] and bad.steps_ago == 1
    assert str(bad.bad_losses["loss"]) == "nan"
    assert not good.any_bad and good.bad_images == [] and good.losses == {"loss": 8.0, "mask": 16.0}
    assert compiles[0] == compiles[2] and compiles[3] == compiles[-1], compiles
    assert not left_the_device()


def two_devices_equal_one():
    """SPMD: one process, the batch split over two devices, everything else as written."""
    import numpy as np
    import torch_xla.distributed.spmd as spmd
    import torch_xla.runtime as runtime

    runtime.use_spmd()
    assert runtime.global_runtime_device_count() == 2

    def step(module, content):
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        loss = module.compute_losses(content)["loss"]
        loss.backward()
        optimizer.step()
        xla.sync()
        return loss.item()

    split = on_device(batch())
    mesh = spmd.Mesh(np.arange(2), (2,), ("data",))
    for value in split.values():
        spmd.mark_sharding(value, mesh, ("data",) + (None,) * (value.ndim - 1))
    # float64 weights: what is left is the order of sums in float32 losses.
    two = tiny_module().double().to(xla.device())
    found = step(two, split)
    one = tiny_module(crop_impl="separable").double()
    expected = step(one, batch())
    assert abs(found - expected) <= 1e-5 * expected, (found, expected)
    theirs = two.state_dict()
    before = tiny_module().double().state_dict()
    for name, value in one.state_dict().items():
        # Some biases have no gradient but rounding.
        limit = 1e-5 * value.abs().max().clamp(min=1e-3)
        assert (value - theirs[name].cpu()).abs().max() <= limit, name
    assert all((value != before[name]).any() for name, value in one.state_dict().items())


def private_names_are_there():
    import torch_xla.core.xla_model as xm
    from torch_xla._internal import tpu

    assert callable(tpu.num_available_devices) and callable(xm._maybe_convert_to_cpu)
    ones = torch.ones(2).to(xla.device())
    assert "HloModule" in xla.graph_text([ones + 1])
    assert xla.identity(ones) == xla.identity(ones) != xla.identity(ones + 1)
    assert xla.host_tensors({"a": [ones]})["a"][0].device.type == "cpu"
