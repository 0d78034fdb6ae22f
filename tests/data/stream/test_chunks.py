"""A sharded set is the set: the same records, pictures and batches, digit for digit."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepmac.check_data.check import check_data
from deepmac.data.annotations.summary import summary_of
from deepmac.data.annotations.table import COLUMNS, pack
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.images import read_picture
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.stream.chunk import Chunk
from deepmac.data.stream.chunked import INDEX, read_chunked
from deepmac.data.stream.gather import joined
from deepmac.data.stream.order import StreamOrder
from deepmac.data.stream.sampler import StreamBatchSampler
from deepmac.data.stream.shard import PLAN, Sharding, shard
from deepmac.data.stream.store import Store
from deepmac.data.transforms.compose import training_transform
from deepmac.errors import DataError, UserError


def data_set(index):
    return CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=frozenset(index.category_ids[::2]),
        transform=training_transform(64),
        targets=TargetSpec(mask_size=16),
        training=True,
        seed=5,
    )


def sampler_of(index, **place):
    split = index.images.split
    return StreamBatchSampler(split, StreamOrder(split.counts, seed=5, lanes=3), 4, **place)


def test_records__are_those_of_the_folder(sets, chunks):
    index = read_chunked(str(chunks), "train", whole=False)
    assert len(index.images) == 42
    numbers = [record.number for record in index.images]
    assert sorted(numbers) == list(range(42)) and numbers != sorted(numbers)
    for record in index.images:
        own = sets["train"].images[record.number]
        assert replace(record, path=own.path) == own
        assert record.data() == own.path.read_bytes()


def test_whole_table__is_the_folders(sets, chunks):
    index = read_chunked(str(chunks), "val", whole=True)
    for column in COLUMNS:
        ours, theirs = (getattr(i.table, column) for i in (index, sets["val"]))
        assert ours.dtype == theirs.dtype
        if not column.endswith("_start"):
            np.testing.assert_array_equal(ours, theirs, column)
    assert list(index.images) == [replace(r, path=r.path) for r in index.images]
    for ours, theirs in zip(index.images, sets["val"].images, strict=True):
        assert replace(ours, path=theirs.path) == theirs
        assert np.array_equal(read_picture(ours), read_picture(theirs))


def test_summary__is_that_of_all_annotations(sets, chunks):
    index = read_chunked(str(chunks), "train", whole=False)
    assert index.summary == summary_of(sets["train"].table) == sets["train"].summary


def test_joined_tables__are_one_table_of_all(sets):
    images = list(sets["train"].images)
    whole = joined([pack(images[:5]), pack(images[5:6]), pack(images[6:])])
    for position, record in enumerate(images):
        assert whole.record(position, record.path.parents[0]) == record


@pytest.mark.parametrize("workers", [0, 2])
def test_batches__equal_the_folders_in_the_same_order(sets, chunks, workers):
    index = read_chunked(str(chunks), "train", whole=False)
    sampler = sampler_of(index)
    sampler.set_epoch(1)
    keys = list(sampler)
    of_folder = {n: record.number for n, record in enumerate(index.images)}
    same = [[(epoch, of_folder[image], batch) for epoch, image, batch in some] for some in keys]
    ours = DataLoader(
        data_set(index), batch_sampler=sampler, collate_fn=collate, num_workers=workers
    )
    theirs = DataLoader(data_set(sets["train"]), batch_sampler=same, collate_fn=collate)
    assert len(keys) == 10
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name


def test_place_in_an_epoch__is_kept_by_other_numbers_of_processes(chunks):
    index = read_chunked(str(chunks), "train", whole=False)
    alone = [image for batch in sampler_of(index) for _, image, _ in batch]
    pair = [sampler_of(index, rank=rank, world_size=2) for rank in (0, 1)]
    for rank in pair:
        rank.start_batch = 2  # of 8 images each
    left = [image for rank in pair for batch in rank for _, image, _ in batch]
    assert sorted(left) == sorted(alone[16:40])


def test_an_index__goes_to_other_processes_without_what_it_has_open(chunks):
    index = read_chunked(str(chunks), "train", whole=False)
    record = index.images[3]
    again = pickle.loads(pickle.dumps(index))
    assert again.images[3] == record and again.images[3].data() == record.data()
    assert len(pickle.dumps(index.images)) < 20_000


def test_smaller_pictures__take_their_annotations_along(sets, tmp_path):
    shard(sets, str(tmp_path), Sharding(longer_side=32, shuffle=False), source="tests")
    small = read_chunked(str(tmp_path), "train", whole=False)
    for ours, theirs in zip(small.images, sets["train"].images, strict=True):
        assert (ours.width, ours.height) == (32, 32)
        before = read_picture(theirs).reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(read_picture(ours).astype(float) - before).mean() < 8
        for one, other in zip(ours.instances, theirs.instances, strict=True):
            assert np.allclose(np.array(one.box) * 2, other.box)
            assert (one.segmentation is None) == (other.segmentation is None)


def test_sharding_again__changes_nothing(sets, chunks):
    before = {p: p.stat().st_mtime_ns for p in chunks.rglob("*") if p.is_file()}
    report = shard(sets, str(chunks), Sharding(chunk_mb=0.02), source="the tests")
    assert report.finished and report.written == 0
    assert before == {p: p.stat().st_mtime_ns for p in chunks.rglob("*") if p.is_file()}


def test_parts_of_several_machines__make_the_same_set(sets, chunks, tmp_path):
    def part(number, of):
        how = Sharding(chunk_mb=0.02)
        return shard(sets, str(tmp_path), how, source="the tests", part=(number, of), workers=2)

    assert not part(0, 2).finished
    assert not (tmp_path / "index.json").exists()
    assert part(1, 2).finished
    for path in chunks.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(chunks)).read_bytes() == path.read_bytes()


def test_stopped_at_the_last_step__leaves_no_plan_behind(sets, tmp_path, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(Store, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shard(sets, str(tmp_path), Sharding(chunk_mb=0.02), source="the tests")
    assert (tmp_path / PLAN).exists() and (tmp_path / INDEX).exists()
    report = shard(sets, str(tmp_path), Sharding(chunk_mb=0.02), source="the tests")
    assert report.finished and report.written == 0 and not (tmp_path / PLAN).exists()


def test_another_set_in_the_way__is_said(sets, chunks, tmp_path):
    with pytest.raises(UserError, match="holds another data set, or the same one cut otherwise"):
        shard(sets, str(chunks), Sharding(chunk_mb=1), source="")
    shard(sets, str(tmp_path), Sharding(chunk_mb=0.02), source="", part=(0, 2))
    with pytest.raises(UserError, match=r"unfinished set with another chunk_mb.*--restart"):
        shard(sets, str(tmp_path), Sharding(chunk_mb=1), source="")
    assert shard(sets, str(tmp_path), Sharding(chunk_mb=1), source="", restart=True).finished


@pytest.mark.parametrize("harm", ["cut", "bit", "missing", "index", "table"])
def test_damage__is_one_sentence(sets, harm, tmp_path):
    shard(sets, str(tmp_path), Sharding(chunk_mb=0.02), source="")
    path = tmp_path / "train/0000001.chunk"
    data = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(data[:-5])
    elif harm == "bit":
        data[Chunk(bytes(data), "").head // 2] ^= 1
        path.write_bytes(data)
    elif harm == "missing":
        path.unlink()
    elif harm == "index":
        (tmp_path / "index.json").write_text(json.dumps({"format": "other"}))
    else:
        (tmp_path / "train.chunks.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged|missing|no index"):
        for record in read_chunked(str(tmp_path), "train", whole=False).images:
            record.data()


def test_check_data__reads_every_byte(sets, tmp_path):
    place = tmp_path / "set"
    shard(sets, str(place), Sharding(chunk_mb=0.02), source="")
    settings = {"source": "stream", "root": str(place)}
    report = check_data(settings, tmp_path / "sound")
    assert not report.problems and report.picture is not None
    assert report.statistics["train"].images == 42 and report.statistics["val"].images == 7
    path = place / "train/0000001.chunk"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    found = check_data(settings, tmp_path / "harmed").problems
    assert [p.kind for p in found] == ["unusable set", "damaged chunk"]
    assert "train/0000001.chunk is damaged" in found[1].message
