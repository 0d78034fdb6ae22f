"""Models as folders, and on the Hugging Face Hub, whose place a stand-in takes here."""

import pickle
import shutil

import pytest
import torch

from deepmac.class_map import ClassMap
from deepmac.errors import UserError
from deepmac.models.files import card_of
from deepmac.models.hub import from_pretrained, push_to_hub, save_pretrained
from deepmac.nn.deepmac import DeepMAC
from networks import tiny_card, tiny_model

CARD = tiny_card(classes=ClassMap((3, 9), ("ant", "bee"), frozenset({9})), mask_head="resnet4")


@pytest.fixture(scope="module")
def model():
    return tiny_model(CARD)


@pytest.fixture
def folder(model, tmp_path):
    return save_pretrained(model, tmp_path / "model")


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture
def no_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr("socket.socket.connect", refused)


def test_local_folder__comes_back_as_it_was_without_a_network(model, folder, no_network):
    again = from_pretrained(folder)
    assert same(again, model)
    assert card_of(again) == CARD
    assert not again.training
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.yaml", "model.safetensors",
    ]  # fmt: skip
    readme = (folder / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: deepmac")
    assert "ant, bee" in readme and "1 of 2" in readme


def test_save_pretrained__refuses_a_full_folder_and_a_model_without_a_card(model, folder):
    with pytest.raises(UserError, match="already exists"):
        save_pretrained(model, folder)
    with pytest.raises(UserError, match="no card"):
        save_pretrained(DeepMAC(num_classes=1, **CARD.network), folder.parent / "other")
    assert not (folder.parent / "other").exists()


def test_pickles__are_never_opened(folder, tmp_path):
    """A repository may hold anything; only two files of known kinds are read."""

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    weights = folder / "model.safetensors"
    for name in ("pytorch_model.bin", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    assert from_pretrained(folder)
    weights.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="cannot be read"):
        from_pretrained(folder)
    torch.save(Evil(), folder / "model.ckpt")
    with pytest.raises(UserError, match="not a readable weight file"):
        from_pretrained(folder / "model.ckpt")
    assert not (tmp_path / "ran").exists()


def test_yaml__that_asks_for_code_is_refused(folder, tmp_path):
    tag = f"!!python/object/apply:builtins.open [{tmp_path / 'ran'}, w]"
    (folder / "config.yaml").write_text(f"format: deepmac-model-1\nnetwork: {tag}\n")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_hub__is_asked_for_two_files_only(model, folder, monkeypatch):
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert same(from_pretrained("someone/deepmac-lite", revision="v1"), model)
    assert asked == {
        "name": "someone/deepmac-lite",
        "revision": "v1",
        "allow_patterns": ["model.safetensors", "config.yaml"],
        "local_files_only": False,
    }


def test_hub__out_of_reach_is_said_in_one_sentence(monkeypatch, no_network):
    with pytest.raises(UserError, match="could not be had from the Hub") as caught:
        from_pretrained("someone/never-downloaded", local_files_only=True)
    assert "\n" not in str(caught.value)
    for name in ("no_folder", "../a/b", "/a/b", "a/b/c"):
        with pytest.raises(UserError, match="give a folder"):
            from_pretrained(name)


def test_push_to_hub__uploads_what_from_pretrained_takes(model, monkeypatch, tmp_path):
    class Api:
        def create_repo(self, repository, private, exist_ok):
            assert (repository, private, exist_ok) == ("me/mine", True, True)

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return type("Commit", (), {"commit_url": "https://hub/me/mine/commit/1"})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push_to_hub(model, "me/mine", private=True).endswith("commit/1")
    assert same(from_pretrained(tmp_path / "uploaded"), model)


def test_push_to_hub__without_a_login_is_said_in_one_sentence(model, monkeypatch):
    class Api:
        def create_repo(self, *_, **__):
            raise PermissionError("401\nno token")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(UserError, match="hf auth login") as caught:
        push_to_hub(model, "me/mine")
    assert "\n" not in str(caught.value)
