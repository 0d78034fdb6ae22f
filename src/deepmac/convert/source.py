"""Where a checkpoint's files are: a folder, a checkpoint prefix, or a tarball."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepmac.errors import UserError
from deepmac.protobuf.text_proto import read_text_proto

_CONFIG = "pipeline.config"
_WANTED = re.compile(r"(pipeline\.config|checkpoint|[\w-]+\.index|[\w-]+\.data-\d{5}-of-\d{5})")
_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
# Weights hardly compress; a much smaller archive than its content is a trap.
_MAX_RATIO, _MAX_SMALL = 30, 1 << 26


@dataclass(frozen=True)
class CheckpointFiles:
    """A TensorFlow checkpoint.

    Attributes:
        prefix: path without ``.index``.
        config: its ``pipeline.config``, if there is one.
    """

    prefix: Path
    config: Path | None


@contextmanager
def checkpoint_files(source: Path, config: Path | None) -> Iterator[CheckpointFiles]:
    """Find a checkpoint; a tarball is unpacked for as long as the context lasts.

    Args:
        source: a folder with the checkpoint, or with ``checkpoint/`` and ``pipeline.config`` in
            it; a tarball of such a folder; or the checkpoint's prefix or index file.
        config: used instead of the ``pipeline.config`` found.

    Raises:
        UserError: nothing there, several checkpoints and no word on which, or a bad tarball.
    """
    if source.is_file() and source.name.endswith(_TAR_SUFFIXES):
        with tempfile.TemporaryDirectory(prefix="deepmac-convert-") as folder:
            _unpack(source, Path(folder))
            yield _find(Path(folder), config, source)
    else:
        yield _find(source, config, source)


def _find(path: Path, config: Path | None, shown: Path) -> CheckpointFiles:
    if not path.is_dir():
        prefix = path.with_suffix("") if path.suffix == ".index" else path
        if not prefix.with_name(prefix.name + ".index").is_file():
            raise UserError(
                f"{shown} is no checkpoint: give a folder with checkpoint/ and pipeline.config, a "
                ".tar.gz of one, or PyTorch weights (.pth)"
            )
        return CheckpointFiles(prefix, config or _config_near(prefix.parent))
    for folder in (path, path / "checkpoint"):
        indices = sorted(folder.glob("*.index"))
        if indices:
            prefix = _current(folder, [index.with_suffix("") for index in indices], shown)
            return CheckpointFiles(prefix, config or _config_near(folder))
    raise UserError(
        f"{shown} holds no checkpoint: there is no .index file in it or its folder checkpoint/"
    )


def _current(folder: Path, prefixes: list[Path], shown: Path) -> Path:
    """The only checkpoint, or the one that the state file ``checkpoint`` names."""
    if len(prefixes) == 1:
        return prefixes[0]
    state = folder / "checkpoint"
    if state.is_file():
        named = read_text_proto(state).scalars("model_checkpoint_path")
        for prefix in prefixes:
            if named and PurePosixPath(str(named[-1])).name == prefix.name:
                return prefix
    raise UserError(
        f"{shown} holds {len(prefixes)} checkpoints ({', '.join(p.name for p in prefixes[:4])}): "
        "give the path of one, such as "
        f"{prefixes[-1]}"
    )


def _config_near(folder: Path) -> Path | None:
    for place in (folder, folder.parent):
        if (place / _CONFIG).is_file():
            return place / _CONFIG
    return None


def _unpack(archive: Path, into: Path) -> None:
    """Copy the files of a checkpoint, under names of our own making, and nothing else.

    The checkpoint within ``saved_model/variables`` has other names and is left.
    """
    allowance = _MAX_SMALL + _MAX_RATIO * archive.stat().st_size
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                allowance -= max(0, member.size) + tarfile.BLOCKSIZE
                if allowance < 0:
                    raise UserError(f"{archive} unpacks to far more than its size: not unpacked")
                path = PurePosixPath(member.name)
                regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if not regular or member.sparse is not None or not _WANTED.fullmatch(path.name):
                    continue
                if path.name != _CONFIG and path.parent.name == "variables":
                    continue
                target = into / (path.name if path.name == _CONFIG else f"checkpoint/{path.name}")
                content = tar.extractfile(member)
                if target.exists():
                    raise UserError(f"{archive} holds several files {path.name}: unpack it first")
                target.parent.mkdir(exist_ok=True)
                if content is not None:
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise _bad(archive, error) from error
    except OSError as error:
        if error.errno is not None:  # the disk's; those of gzip have no number
            raise
        raise _bad(archive, error) from error


def _bad(archive: Path, error: Exception) -> UserError:
    return UserError(
        f"{archive} cannot be unpacked ({type(error).__name__}: {error}): it is damaged or cut "
        "off; download it again"
    )
