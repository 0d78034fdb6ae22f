"""Several processes that share a batch learn what one process learns from all of it."""

import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from deepmac.class_map import ClassMap
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.nn.replicas import distributed_sum

CLASSES = ClassMap((3, 7, 11), ("cat", "dog", "cow"), frozenset({3, 7}))


class Trainer:
    """What the module asks of its trainer within a step."""

    global_step = 0
    accelerator = None

    def __init__(self, world_size):
        self.world_size = world_size


def module(world_size):
    torch.manual_seed(0)
    built = DeepMACModule(
        backbone="hourglass_tiny2",
        head_channels=8,
        mask_head="hourglass10",
        num_init_channels=4,
        pixel_embedding_dim=4,
        dim=4,
    )
    built.build(CLASSES)
    built.double()  # what is left is rounding of the float32 losses
    built._trainer = Trainer(world_size)
    built.setup("fit")
    built.on_fit_start()
    return built.train()


def batch(masks):
    """Four images with 3, 0, 1 and 2 objects; those of the first pair have masks, or all."""
    drawn = torch.Generator().manual_seed(1)
    valid = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    corner = torch.rand(4, 3, 2, generator=drawn) * 30
    size = torch.rand(4, 3, 2, generator=drawn) * 20 + 5
    boxes = torch.cat([corner, corner + size], dim=-1) * valid[..., None]
    first = torch.tensor([True, True, masks == "all", masks == "all"])
    return {
        "images": (torch.rand(4, 3, 64, 64, generator=drawn) * 255).to(torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": torch.randint(0, 3, (4, 3), generator=drawn),
        "valid": valid,
        "mask_valid": valid & first[:, None],
        "mask_targets": (torch.rand(4, 3, 32, 32, generator=drawn) < 0.5).float(),
        "true_sizes": torch.full((4, 2), 64),
        "ignore": torch.zeros(4, 16, 16, dtype=torch.bool),
        "image_ids": torch.arange(4),
    }


def test_training_step__of_two_processes_equals_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(_replica, args=(port,), nprocs=2)


def _replica(rank, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    for masks in ("all", "of one replica"):
        _compare(rank, masks)
    dist.destroy_process_group()


def _compare(rank, masks):
    whole, alone = batch(masks), module(1)
    expected = alone.compute_losses(whole)
    expected["loss"].backward()
    ours = module(2)
    losses = ours.compute_losses({k: v[2 * rank : 2 * rank + 2] for k, v in whole.items()})
    losses["loss"].backward()
    for name, value in losses.items():
        mean = distributed_sum(value.detach()) / 2
        torch.testing.assert_close(mean, expected[name].detach(), rtol=1e-5, atol=1e-6)
    largest = max(p.grad.abs().max() for p in alone.parameters())
    for (name, found), wanted in zip(ours.named_parameters(), alone.parameters(), strict=True):
        grad = distributed_sum(found.grad) / 2  # as a distributed strategy averages them
        assert (grad - wanted.grad).abs().max() <= 1e-6 * largest, name
    for (name, found), wanted in zip(ours.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8, msg=name)
