"""Bring the TensorFlow original up, in float32 or in float64. Runs in its own environment.

The original says ``tf.float32`` throughout. For float64 each of its modules is given a
stand-in for ``tensorflow`` in which ``float32`` means float64; Keras layers follow Keras'
own switch. Nothing of the original's arithmetic is written anew, but for ``tf.image.resize``
and ``tf.losses.absolute_difference``, which answer in float32 whatever they are asked.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf


class _Absent(types.ModuleType):
    """A module of which any attribute can be imported; none is ever called."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _OfficialFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for ``official.*``, which only EfficientNet backbones use."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.partition(".")[0] != "official":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class DoubleTensorFlow:
    """``tensorflow`` (version 1 or 2 interface) whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.float32 = tf.float64
        self.image = _DoubleImage(module.image)
        self.losses = _DoubleLosses()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name in ("ones", "zeros"):
            return lambda shape, dtype=tf.float64, **rest: value(shape, dtype=dtype, **rest)
        if name in ("constant", "convert_to_tensor"):
            return lambda item, dtype=None, *rest, **named: _as_double(
                value, item, dtype, *rest, **named
            )
        if name == "linspace":
            return lambda start, stop, num, **rest: value(
                tf.cast(start, tf.float64), tf.cast(stop, tf.float64), num, **rest
            )
        return value


class _DoubleImage:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def resize(self, images: tf.Tensor, size: Any, **rest: Any) -> tf.Tensor:
        """Each axis by the weights that the kernel itself gives, exact for the factor four."""
        height, width = int(size[0]), int(size[1])
        for axis, side in ((1, height), (2, width)):
            unit = tf.eye(int(images.shape[axis]), dtype=tf.float32)[None, :, :, None]
            weights = self._module.resize(unit, (side, unit.shape[2]), **rest)[0, :, :, 0]
            moved = tf.tensordot(tf.cast(weights, images.dtype), images, [[1], [axis]])
            order = [1, 0, 2, 3] if axis == 1 else [1, 2, 0, 3]
            images = tf.transpose(moved, order)
        return images


class _DoubleLosses:
    class Reduction:
        NONE = "none"

    @staticmethod
    def absolute_difference(
        labels: tf.Tensor, predictions: tf.Tensor, *, weights: tf.Tensor, **unused: Any
    ) -> tf.Tensor:
        return tf.abs(predictions - labels) * weights


def set_up(seed: int, dtype: str) -> None:
    """Import the original's modules and settle what they compute in."""
    tf.random.set_seed(seed)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sys.meta_path.insert(0, _OfficialFinder())
    from object_detection.builders import model_builder  # noqa: F401 - pulls in all the others

    if dtype == "float64":
        tf.keras.backend.set_floatx("float64")
        for name, module in list(sys.modules.items()):
            if name.startswith("object_detection.") and hasattr(module, "tf"):
                module.tf = DoubleTensorFlow(module.tf)


def _as_double(function: Any, item: Any, dtype: Any, *rest: Any, **named: Any) -> Any:
    if dtype is None and not isinstance(item, tf.Tensor | tf.Variable):
        plain = function(item, *rest, **named)
        if plain.dtype != tf.float32:
            return plain
        dtype = tf.float64
    return function(item, dtype, *rest, **named)
