"""A sharded set, every byte of which is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deepmac.data.annotations.coco import UnusableSet
from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.problems import Problem
from deepmac.data.images import read_picture
from deepmac.data.stream.chunked import StreamImages, read_chunked
from deepmac.errors import DataError


def checked_chunks(root: str, name: str, *, decode: bool) -> CocoIndex:
    """A split whose chunks are what was written, with what is wrong with its pictures.

    Args:
        root: folder or URL of the set.
        name: of the split.
        decode: decode every picture too; those that cannot be are left out.

    Raises:
        UnusableSet: a chunk is missing or damaged.
        DataError: there is no such split.
    """
    images = read_chunked(root, name, whole=False).images
    assert isinstance(images, StreamImages)
    split, found, kept = images.split, list[Problem](), list[int]()
    for number in range(len(split.chunks)):
        place = Path(split.where(number))
        try:
            chunk = split.check(number)
        except DataError as error:
            found.append(Problem("damaged chunk", str(error), place))
            continue
        first = int(split.ends[number] - split.counts[number])
        for row in range(len(chunk.table)):
            try:
                if decode:
                    read_picture(images[first + row])
            except DataError as error:
                identity = int(chunk.table.image_id[row])
                found.append(Problem("unreadable image", str(error), place, identity))
                continue
            kept.append(first + row)
    if any(problem.kind == "damaged chunk" for problem in found):
        raise UnusableSet(f"{split.store.where(name)} cannot be trained from", found)
    whole = read_chunked(root, name, whole=True)
    if len(kept) < len(images):
        whole = whole.at(kept)
    return replace(whole, problems=(*whole.problems, *found))
