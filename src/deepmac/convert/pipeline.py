"""The original's ``pipeline.config`` as an experiment: every field mapped, or named."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from deepmac.convert.experiment import Experiment, Outcome, run_command, shown, written, yaml_of
from deepmac.convert.pipeline_fields import (
    ADAM,
    AUGMENTATIONS,
    BOXES,
    COLORS,
    EXTRACTOR,
    FIELDS,
    MASKS,
    MOMENTUM,
    READERS,
    RESIZER,
    TRAIN,
    Field,
)
from deepmac.data.annotations.label_map import coco_label_map
from deepmac.data.splits import NONVOC_NAMES, VOC_NAMES
from deepmac.errors import ConfigError
from deepmac.files import write_atomically
from deepmac.nn.backbones import CENTERNET_BGR, IMAGENET, Normalization
from deepmac.nn.hourglass import HOURGLASS_BACKBONES
from deepmac.protobuf.text_proto import Message, read_text_proto

_CONTAINERS = {
    ".".join(words[:n])
    for words in (path.split(".") for path in FIELDS)
    for n in range(1, len(words))
}
_NEAREST = {
    "resnet_v1_50_fpn": "resnet50_imagenet",
    "resnet_v2_50": "resnet50_imagenet",
    "resnet_v1_101_fpn": "resnet101_imagenet",
    "resnet_v2_101": "resnet101_imagenet",
}


def read_pipeline(path: Path) -> Experiment:
    """Read a ``pipeline.config``.

    Raises:
        UserError: no such file, no text form of protobuf (the sentence says the line), no Deep-MAC
            model, or a value of another type than the field's.
    """
    return experiment_of(read_text_proto(path), path)


def experiment_of(config: Message, path: Path) -> Experiment:
    """As :func:`read_pipeline` of what was parsed from ``path``."""
    model = config.message("model")
    if model is None or model.message("center_net") is None:
        kinds = ", ".join(model.fields) if model is not None else "no model"
        raise ConfigError(
            f"{path} describes {kinds or 'no model'}: only CenterNet-based Deep-MAC "
            "(model.center_net) can be converted"
        )
    if model.message("center_net.deepmac_mask_estimation") is None:
        raise ConfigError(
            f"{path} is of a CenterNet without masks (no deepmac_mask_estimation): only Deep-MAC "
            "can be converted"
        )
    return _Reader(path, config).experiment()


def convert_pipeline(source: Path, out: Path) -> Experiment:
    """Write a ``pipeline.config`` as an experiment.

    Args:
        source: the config.
        out: the yaml file to create; in a folder ``experiment`` it is a choice of that group.

    Raises:
        UserError: as :func:`read_pipeline`; ``out`` is there already, or cannot be written.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{out} is no name for an experiment: give --out FILE.yaml")
    if out.exists():
        raise ConfigError(f"{out} exists already: choose another --out")
    made = read_pipeline(source)
    text = written(made, run_command(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    return made


class _Reader:
    def __init__(self, path: Path, config: Message) -> None:
        self.path, self.config = path, config
        self.made = Experiment(path, "voc_to_nonvoc")
        self.values: dict[str, list[Any]] = {}
        self.lines: dict[str, int] = {}
        self.steps: list[tuple[str, Message, int]] = []  # augmentations

    def experiment(self) -> Experiment:
        self._walk(self.config, "")
        self._defaults()
        for path in self.values:
            self._single(path)
        for together in (
            self._size, self._extractor, self._box_losses, self._mask_loss, self._split,
            self._optimizer, self._augmentations, self._batch, self._data,
        ):  # fmt: skip
            together()
        self.made.settings["model.compat"] = "tf_release"
        self.made.outcomes.sort(key=lambda o: (not o.line, o.line))
        return self.made

    def _walk(self, message: Message, above: str) -> None:
        for name, values in message.fields.items():
            path = f"{above}.{name}" if above else name
            lines = message.lines[name]
            kind = FIELDS.get(path)
            if path == AUGMENTATIONS:
                for value, line in zip(values, lines, strict=True):
                    self._step(value, line)
            elif kind is not None and (kind.kind != "message" or not self._is_inner(path, values)):
                if len(values) > 1 and not kind.repeated:
                    raise self._error(path, lines[1], "stands here a second time; keep one")
                self.values[path] = values
                self.lines[path] = lines[0]
            elif path in _CONTAINERS and all(isinstance(v, Message) for v in values):
                if len(values) > 1 and path not in READERS:
                    raise self._error(path, lines[1], "stands here a second time; keep one")
                if len(values) > 1:
                    text = "only the first is used: there is one data.root"
                    self._note(path, f"{len(values)} of them", lines[1], "no counterpart", text)
                self._walk(values[0], path)  # type: ignore[arg-type]
            else:
                self._unknown(path, values, lines[0])

    def _is_inner(self, path: str, values: list[Any]) -> bool:
        """Whether fields within are known, so that the message itself is no leaf."""
        inner = {p[len(path) + 1 :].split(".")[0] for p in FIELDS if p.startswith(path + ".")}
        given = {name for v in values if isinstance(v, Message) for name in v.fields}
        return bool(inner & given)

    def _unknown(self, path: str, values: list[Any], line: int) -> None:
        above, _, name = path.rpartition(".")
        beside = {p[len(above) + bool(above) :].split(".")[0] for p in FIELDS
                  if not above or p.startswith(above + ".")}  # fmt: skip
        close = get_close_matches(name, beside, 1)
        text = f"unknown, not used{f'; did you mean {close[0]}?' if close else ''}"
        self._note(path, shown(values), line, "unknown", text)

    def _step(self, value: Any, line: int) -> None:
        names = list(value.fields) if isinstance(value, Message) else []
        if len(names) != 1 or not isinstance(value.fields[names[0]][0], Message):
            raise self._error(AUGMENTATIONS, line, "is one augmentation and its braces")
        self.steps.append((names[0], value.fields[names[0]][0], value.lines[names[0]][0]))

    def _defaults(self) -> None:
        """Values of fields that the file leaves out, in messages that it has."""
        for path, kind in FIELDS.items():
            above = path.rpartition(".")[0]
            if kind.default is None or path in self.values or self.config.message(above) is None:
                continue
            self.values[path] = [kind.default]

    def _single(self, path: str) -> None:
        """A field that means something by itself."""
        kind = FIELDS[path]
        line = self.lines.get(path, 0)
        text = shown(self.values[path])
        if kind.to is not None:
            value = self.get(path)
            if kind.words is not None:
                if value not in kind.words:
                    listed = ", ".join(map(str, kind.words))
                    raise self._error(path, line, f"is {text}; known are {listed}")
                value = kind.words[value]
            if kind.to.startswith("/"):
                self.made.choices[kind.to] = value
            else:
                self.made.settings[kind.to] = value
            if line:
                to = kind.to.removeprefix("/")
                self._note(path, text, line, "setting", f"{to}={yaml_of(value)}")
        elif kind.fixed is not None:
            if kind.fixed is ... or self.get(path) == kind.fixed:
                if line:
                    self._note(path, text, line, "as here", kind.why)
            else:
                self._note(path, text, line, "no counterpart", kind.why)
        elif kind.unused:
            self._note(path, text, line, "no counterpart", kind.why)

    def get(self, path: str) -> Any:
        """The value of a field, or all of a repeated one's; None where there is none."""
        kind = FIELDS[path]
        values = [self._typed(path, kind, value) for value in self.values.get(path, [])]
        return values if kind.repeated else values[-1] if values else None

    def _typed(self, path: str, kind: Field, value: Any) -> Any:
        if kind.kind == "float" and type(value) is int and abs(value) < 1 << 53:
            return float(value)
        if kind.kind == "bool" and (type(value) is bool or value in (0, 1, "t", "f")):
            return value in (True, 1, "t")
        expected = {"int": int, "str": str, "float": float, "bool": bool}[kind.kind]
        if type(value) is not expected:
            words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
            wanted = words.get(kind.kind, "a text")
            line = self.lines.get(path, 0)
            raise self._error(path, line, f"is {shown([value])}; it is {wanted}")
        return value

    def _size(self) -> None:
        resizer = self.config.message(RESIZER)
        least, most = self.get(f"{RESIZER}.min_dimension"), self.get(f"{RESIZER}.max_dimension")
        if resizer is None:
            return
        self.made.base = "voc_to_nonvoc" if most <= 512 else "voc_to_nonvoc_1024"
        path = f"{RESIZER}.min_dimension"
        same = least == most
        text = "data.image_size" if same else "pictures are scaled until they fit data.image_size"
        kind = "setting" if same else "no counterpart"
        self._note(path, str(least), self.lines.get(path, 0), kind, text, default=same)

    def _extractor(self) -> None:
        path = f"{EXTRACTOR}.type"
        name = self.get(path)
        if name in HOURGLASS_BACKBONES:
            self.made.choices["/backbone"] = name
            self._note(path, shown([name]), self.lines[path], "setting", f"backbone={name}")
        elif name is not None:
            near = _NEAREST.get(name)
            text = "there is no such backbone; "
            text += f"backbone={near} is the nearest" if near else "the base's hourglass is used"
            if near:
                self.made.choices["/backbone"] = near
            self._note(path, shown([name]), self.lines[path], "no counterpart", text)
        bgr = bool(self.get(f"{EXTRACTOR}.bgr_ordering"))
        means, stds = (self.get(f"{EXTRACTOR}.channel_{k}") for k in ("means", "stds"))
        text, kind = self._normalization(means, stds, bgr)
        for key in ("channel_means", "channel_stds", "bgr_ordering"):
            path = f"{EXTRACTOR}.{key}"
            if path in self.lines:
                self._note(path, shown(self.values[path]), self.lines[path], kind, text)

    def _normalization(self, means: list[float], stds: list[float], bgr: bool) -> tuple[str, str]:
        if len(means) == len(stds) == 3:
            order = slice(None, None, -1) if bgr else slice(None)
            given = Normalization(tuple(means[order]), tuple(stds[order]), bgr)  # type: ignore[arg-type]
            for name, ours in (("centernet_bgr", CENTERNET_BGR), ("imagenet", IMAGENET)):
                if given == ours:
                    own = name == "centernet_bgr"
                    self.made.settings["model.normalization"] = None if own else name
                    word = "null, which is centernet_bgr for hourglasses" if own else name
                    return f"model.normalization={word}", "setting"
        return "model.normalization is imagenet or centernet_bgr", "no counterpart"

    def _box_losses(self) -> None:
        factor = self.get(f"{BOXES}.task_loss_weight")
        if factor is None:
            return
        for name in ("offset_weight", "size_weight"):
            key = f"model.losses.{name}"
            self.made.settings[key] = float(f"{self.made.settings[key] * factor:.12g}")
        path = f"{BOXES}.task_loss_weight"
        if path in self.lines:
            text = "a factor of model.losses.offset_weight and size_weight"
            self._note(path, str(factor), self.lines[path], "setting", text)
        path = f"{BOXES}.localization_loss.l1_localization_loss"
        if path in self.lines:
            self._note(path, "{}", self.lines[path], "as here", "the loss of sizes and offsets")

    def _mask_loss(self) -> None:
        above = f"{MASKS}.classification_loss"
        for name, ours in (
            ("weighted_sigmoid", "cross_entropy"),
            ("weighted_dice_classification_loss", "dice"),
        ):
            path = f"{above}.{name}"
            if path in self.lines:
                self.made.settings["model.losses.mask_loss"] = ours
                text = f"model.losses.mask_loss={ours}"
                self._note(path, shown(self.values[path]), self.lines[path], "setting", text)

    def _split(self) -> None:
        path = f"{MASKS}.allowed_masked_classes_ids"
        ids = self.get(path)
        id_of = coco_label_map().id_of
        voc, others = ({id_of[name] for name in names} for names in (VOC_NAMES, NONVOC_NAMES))
        choice = "all" if not ids else "custom"
        choice = "voc_to_nonvoc" if set(ids) == voc else choice
        choice = "nonvoc_to_voc" if set(ids) == others else choice
        self.made.choices["/split"] = choice
        text = f"split={choice}"
        if choice == "custom":
            self.made.settings["data.masked_classes"] = sorted(set(ids))
            text += f" data.masked_classes={sorted(set(ids))}"
        line = self.lines.get(path, 0)
        self._note(path, shown(ids) if ids else "none: all classes", line, "setting", text)

    def _optimizer(self) -> None:
        settings = self.made.settings
        optimizer = self.config.message(f"{TRAIN}.optimizer")
        if optimizer is None:
            return
        if self.config.message(MOMENTUM) is not None:
            settings["model.optimizer"] = "sgd"
        for used in (ADAM, MOMENTUM):
            if self.config.message(f"{used}.learning_rate.constant_learning_rate") is not None:
                settings |= {"model.lr_schedule": "constant", "model.warmup_steps": 0}
            path = f"{used}.learning_rate.cosine_decay_learning_rate.total_steps"
            total, steps = self.get(path), self.get(f"{TRAIN}.num_steps")
            if total is not None:
                kind = "setting" if total == steps else "no counterpart"
                text = "trainer.max_steps" if total == steps else FIELDS[path].why
                self._note(path, str(total), self.lines.get(path, 0), kind, text)
        settings["trainer.max_steps"] = settings.get("trainer.max_steps") or -1
        settings["trainer.gradient_clip_val"] = settings.get("trainer.gradient_clip_val") or None
        averaged = self.get(f"{TRAIN}.optimizer.use_moving_average")
        decay = self.get(f"{TRAIN}.optimizer.moving_average_decay")
        self.made.choices["/callbacks"] = "ema" if averaged else "default"
        text = "callbacks=ema" if averaged else "callbacks=default"
        path = f"{TRAIN}.optimizer.use_moving_average"
        word = "true" if averaged else "false"
        self._note(path, word, self.lines.get(path, 0), "setting", text)
        path = f"{TRAIN}.optimizer.moving_average_decay"
        if averaged:
            settings["callbacks.ema.init_args.decay"] = decay
            text = f"callbacks.ema.init_args.decay={decay}"
            self._note(path, str(decay), self.lines.get(path, 0), "setting", text)
        elif path in self.lines:
            text = "without use_moving_average it means nothing"
            self._note(path, str(decay), self.lines[path], "as here", text)

    def _augmentations(self) -> None:
        settings = self.made.settings
        settings |= {"data.flip": 0.0, "data.color": False, "data.crop_scale": None}
        colors = {name for name, _, _ in self.steps} & COLORS.keys()
        settings["data.color"] = all_colors = colors == COLORS.keys()
        for name, options, line in self.steps:
            path = f"{AUGMENTATIONS}.{name}"
            if name == "random_horizontal_flip":
                chance = self._option(path, options, "probability", 0.5)
                settings["data.flip"] = chance
                self._note(path, shown([options]), line, "setting", f"data.flip={chance}")
                self._options(path, options, {"probability"}, "key points are not flipped here")
            elif name in COLORS:
                text = "data.color=true draws it with the other three"
                kind = "setting"
                for key, default in COLORS[name].items():
                    if self._option(path, options, key, default) != default:
                        kind, text = "no counterpart", f"data.color draws it with {key} {default}"
                if not all_colors:
                    kind, text = (
                        "no counterpart",
                        "data.color draws all four colour changes or none",
                    )
                self._note(path, shown([options]), line, kind, text)
                self._options(path, options, set(COLORS[name]), "unknown, not used")
            elif name == "random_square_crop_by_scale":
                scales = [self._option(path, options, f"scale_{k}", v)
                          for k, v in (("min", 0.6), ("max", 1.3))]  # fmt: skip
                settings["data.crop_scale"] = scales
                self._note(path, shown([options]), line, "setting", f"data.crop_scale={scales}")
                for key, fixed in (("max_border", 128), ("num_scales", 8)):
                    if self._option(path, options, key, fixed) != fixed:
                        at = options.lines[key][0]
                        text = f"the crop has {fixed}"
                        self._note(f"{path}.{key}", shown(options.fields[key]), at,
                                   "no counterpart", text)  # fmt: skip
                used = {"scale_min", "scale_max", "max_border", "num_scales"}
                self._options(path, options, used, "unknown, not used")
            else:
                text = "no such augmentation here; data.* has flip, color, crop_scale, scale_jitter"
                self._note(path, shown([options]), line, "no counterpart", text)
        order = ["random_horizontal_flip", *COLORS, "random_square_crop_by_scale"]
        places = [order.index(name) for name, _, _ in self.steps if name in order]
        if places != sorted(places):
            text = f"they are applied in the order {', '.join(order)}"
            self._note(AUGMENTATIONS, "another order", self.steps[0][2], "no counterpart", text)

    def _option(self, path: str, options: Message, name: str, default: float) -> float:
        if name not in options.fields:
            return default
        value = options.scalars(name)[-1] if options.scalars(name) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            at = options.lines[name][0]
            raise self._error(f"{path}.{name}", at, f"is {shown([value])}; it is a number")
        return value

    def _options(self, path: str, options: Message, used: set[str], why: str) -> None:
        for name in options.fields.keys() - used:
            text = shown(options.fields[name])
            kind = "unknown" if why.startswith("unknown") else "no counterpart"
            self._note(f"{path}.{name}", text, options.lines[name][0], kind, why)

    def _batch(self) -> None:
        path = f"{TRAIN}.batch_size"
        size = self.get(path)
        if size is None:
            return
        device = 16 if self.made.base == "voc_to_nonvoc" else 2
        self.made.settings["data.batch_size"] = min(device, size)
        text = f"data.batch_size={min(device, size)} a device: devices times it times "
        text += f"trainer.accumulate_grad_batches is to be {size}"
        self._note(path, str(size), self.lines.get(path, 0), "setting", text)

    def _data(self) -> None:
        folders: dict[str, set[PurePosixPath]] = {}
        for reader in READERS:
            path = f"{reader}.tf_record_input_reader.input_path"
            for word in self.values.get(path, []):
                if not isinstance(word, str):
                    raise self._error(path, self.lines[path], "is no text")
                folders.setdefault(path, set()).add(PurePosixPath(word).parent)
        every = set().union(*folders.values()) if folders else set()
        text, kind = "give the records' folder as data.root", "no counterpart"
        if len(every) == 1:
            folder = str(next(iter(every)))
            if not any(sign in folder for sign in ("PATH_TO_BE_CONFIGURED", "$", "?", "*", "://")):
                self.made.settings |= {"data.root": folder, "data.format": "tfrecord"}
                text, kind = f"data.root={folder} data.format=tfrecord", "setting"
        elif len(every) > 1:
            text = "the sets lie in several folders; bring them into one and give it as data.root"
        for path in folders:
            self._note(path, shown(self.values[path]), self.lines[path], kind, text)

    def _note(
        self, path: str, value: str, line: int, kind: str, text: str, *, default: bool = False
    ) -> None:
        if line or not default:
            self.made.outcomes.append(Outcome(path, value, line, kind, text))

    def _error(self, path: str, line: int, complaint: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {line}: {path} {complaint}")
