"""What tracers of networks have to be told."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import padding as timm_padding
from torch import Tensor


def static_shapes(tensor: Tensor) -> bool:
    """Whether shapes must not depend on data: on XLA, under compile, export and tracing."""
    return tensor.device.type == "xla" or torch.compiler.is_compiling() or torch.jit.is_tracing()


@contextmanager
def padding_of_even_sides() -> Iterator[None]:
    """timm's "same" padding as the constant that it is on sides the stride divides.

    Pictures are multiples of all strides together. Where sides are free, the formula for any side
    makes the tracer reason for hours.
    """
    original = timm_padding.get_same_padding
    timm_padding.get_same_padding = lambda x, kernel_size, stride, dilation: max(
        (kernel_size - 1) * dilation + 1 - stride, 0
    )
    try:
        yield
    finally:
        timm_padding.get_same_padding = original
