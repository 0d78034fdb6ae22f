"""Object stores: what is wrong with an address, a bucket or a store is one sentence."""

import json
import subprocess
import sys

import pytest

from deepmac.data.stream import store as module
from deepmac.data.stream.chunked import read_chunked
from deepmac.data.stream.shard import Sharding, shard
from deepmac.data.stream.store import Store, StoreError
from deepmac.errors import DataError, UserError


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_files__are_written_read_listed_and_removed(place, request, tmp_path):
    where = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket") + "/set"
    store = Store(where)
    assert store.names("train") == {}
    store.write("train/a", b"0123456789")
    assert store.read("train/a") == b"0123456789" and store.read("train/a", 2, 5) == b"234"
    assert store.names("train") == {"a": 10}
    store.remove("train/a")
    store.remove("train/a")
    with pytest.raises(FileNotFoundError):
        store.read("train/a")


def test_sharding_to_a_store__makes_the_folders_set(sets, chunks, bucket):
    report = shard(sets, f"{bucket}/set", Sharding(chunk_mb=0.02), source="the tests", workers=2)
    assert report.finished
    store = Store(f"{bucket}/set")
    for path in chunks.rglob("*"):
        if path.is_file():
            assert store.read(str(path.relative_to(chunks))) == path.read_bytes()


def test_chunks_of_a_store__are_fetched_into_a_bounded_cache(
    sets, chunks, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path))
    shard(sets, f"{bucket}/set", Sharding(chunk_mb=0.02), source="the tests")
    limit = 2.2 * max(p.stat().st_size for p in chunks.rglob("*.chunk"))
    far = read_chunked(f"{bucket}/set", "train", whole=False, cache_gb=limit / 1e9)
    near = read_chunked(str(chunks), "train", whole=False)
    for ours, theirs in zip(far.images, near.images, strict=True):
        assert ours == theirs and ours.data() == theirs.data()
        assert sum(p.stat().st_size for p in tmp_path.rglob("*.chunk")) <= limit


def test_missing_package__is_said_with_the_command(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"takes the package s3fs: pip install 'deepmac\[stream\]'"):
        Store("s3://bucket/set")
    with pytest.raises(UserError, match=r"gcsfs: pip install 'deepmac\[gcs\]'"):
        Store("gs://bucket/set")


def test_unknown_address__is_said():
    with pytest.raises(UserError, match="nosuch://x is no place that can be read"):
        Store("nosuch://x")


def test_missing_bucket_or_set__is_said(bucket):
    with pytest.raises(DataError, match=r"no set of chunks|no such bucket"):
        read_chunked("s3://there-is-no-such-bucket/set", "train", whole=False)
    with pytest.raises(DataError, match=r"is no set of chunks: it has no index.json"):
        read_chunked(f"{bucket}/none", "train", whole=False)
    with pytest.raises(StoreError, match="no such bucket"):
        Store("s3://there-is-no-such-bucket/set").write("a", b"")


def test_missing_credentials__are_said(bucket, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="no credentials were found; set AWS_PROFILE"):
        Store(f"{bucket}/set").read("index.json")


def test_a_store_that_does_not_answer__is_asked_again_then_given_up(monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("DEEPMAC_PATIENCE", "3")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"has not answered for 3 s .*start again once it does"):
        Store("s3://bucket/set").read("index.json")
    assert "; again in 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code", ["import deepmac", "from deepmac.cli import main; main(['--help'])"]
)
def test_engines__are_not_imported_unless_asked_for(code):
    heavy = ("ray", "pyarrow", "s3fs", "ijson", "boto3", "botocore")
    script = (
        f"{code}\nimport sys, json\nprint(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
