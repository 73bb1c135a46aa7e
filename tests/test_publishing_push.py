"""Pushing to a stand-in of the Hub with the real client: one commit a push, nothing twice, every refusal told."""

import hashlib
import json

import huggingface_hub.constants
import pytest

from alignslm.publishing import PublishError
from alignslm.publishing.hub import Target, push, with_manifest
from alignslm.publishing.hub_errors import AGAIN
from alignslm.publishing.pushing import Upload, write_preview
from tests.hub_stand_in import READER, TOKEN, Repo, serving
from tests.messages import names
from tests.tiny_hub import point_hub_at

TARGET = Target("me/talk", "model", private=True, tag="r1-0f", message="first words")
CARD = b"---\nlicense: mit\n---\n\n# Talk\n"


@pytest.fixture
def hub(monkeypatch):
    with serving() as running:
        point_hub_at(running.url, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def bundle(folder, **changed):
    weights = folder / "weights"
    weights.write_bytes(b"w" * 1000)
    return with_manifest(
        {"README.md": CARD, "model.safetensors": weights, "config.json": b"{}", **changed}, kind="model"
    )


def test_a_first_push_makes_a_private_repository_with_one_commit_and_a_tag(hub, tmp_path):
    files = bundle(tmp_path)
    pushed = push(files, TARGET)
    repo = hub.repos["model", "me/talk"]
    assert repo.private
    assert [commit.message for commit in repo.commits] == ["initial commit", "first words"]
    assert repo.tags == {"r1-0f": repo.head.oid}
    assert (pushed.commit, pushed.tag, pushed.endpoint) == (repo.head.oid, "r1-0f", hub.url)
    assert set(repo.head.files) == {".gitattributes", *files}
    assert repo.head.files["model.safetensors"] == b"w" * 1000
    assert {name: file.sha256 for name, file in pushed.files.items()} == {
        name: hashlib.sha256(repo.head.files[name]).hexdigest() for name in files
    }


def test_a_preview_is_written_whole_or_not_at_all(tmp_path):
    packages = {kind: Upload(bundle(tmp_path), TARGET) for kind in ("model", "dataset")}
    (tmp_path / "out" / "dataset").mkdir(parents=True)
    with pytest.raises(PublishError) as error:
        write_preview(packages, tmp_path / "out")
    names(error.value, f"{tmp_path}/out/dataset")
    assert not (tmp_path / "out" / "model").exists()
    (tmp_path / "out" / "dataset").rmdir()
    write_preview(packages, tmp_path / "out")
    for kind in packages:
        assert (tmp_path / "out" / kind / "README.md").read_bytes() == CARD
        assert (tmp_path / "out" / kind / "model.safetensors").read_bytes() == b"w" * 1000


def test_the_same_again_makes_no_commit_and_sends_no_large_file(hub, tmp_path):
    first = push(bundle(tmp_path), TARGET)
    hub.requests.clear()
    assert push(bundle(tmp_path), TARGET) == first
    assert len(hub.repos["model", "me/talk"].commits) == 2
    assert hub.sent("PUT") == hub.sent("POST", "/commit/") == hub.sent("POST", "/tag/") == []


def test_a_change_is_one_commit_that_sends_what_changed_and_takes_away_what_went(hub, tmp_path):
    push(bundle(tmp_path, **{"part-2.safetensors": b"2" * 10, "old.json": b"[]"}), TARGET)
    repo = hub.repos["model", "me/talk"]
    repo.add("by hand, on the website", {**repo.head.files, "notes.txt": b"mine"})
    uploads = len(hub.sent("PUT"))
    pushed = push(bundle(tmp_path, **{"part-2.safetensors": b"3" * 10}), TARGET._replace(tag="r1-1e", message="second"))
    assert len(repo.commits) == 4
    assert len(hub.sent("PUT")) == uploads + 1
    assert repo.head.files["part-2.safetensors"] == b"3" * 10
    assert "old.json" not in repo.head.files
    assert repo.head.files["notes.txt"] == b"mine"
    assert repo.tags == {"r1-0f": repo.commits[1].oid, "r1-1e": pushed.commit}


def test_a_tag_of_the_same_experiment_moves_with_its_card(hub, tmp_path):
    push(bundle(tmp_path), TARGET)
    pushed = push(bundle(tmp_path, **{"README.md": CARD + b"more\n"}), TARGET)
    assert hub.repos["model", "me/talk"].tags == {"r1-0f": pushed.commit}


def test_a_push_that_broke_before_its_commit_shows_nothing_and_goes_on(hub, tmp_path):
    hub.refuse["POST /commit/"] = (400, "no")
    with pytest.raises(PublishError):
        push(bundle(tmp_path), TARGET)
    repo = hub.repos["model", "me/talk"]
    assert len(repo.commits) == 1
    assert len(hub.sent("PUT")) == 1
    hub.refuse.clear()
    push(bundle(tmp_path), TARGET)
    assert len(repo.commits) == 2
    assert len(hub.sent("PUT")) == 1  # kept from the first


SETTINGS = "https://huggingface.co/settings/tokens"
NOT_VALID = ("token", "HF_TOKEN", SETTINGS)


def refused(tmp_path, target=TARGET) -> str:
    with pytest.raises(PublishError) as told:
        push(bundle(tmp_path), target)
    assert TOKEN not in str(told.value)
    assert READER not in str(told.value)
    return str(told.value)


def test_without_a_token_nothing_is_asked(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    names(refused(tmp_path), "hf auth login", "Hub", "HF_TOKEN", "https://huggingface.co/settings/tokens")
    assert hub.requests == []


def test_a_wrong_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    said = refused(tmp_path)
    names(said, "Invalid credentials in Authorization header", "me/talk", "Hub", "401", *NOT_VALID, AGAIN)
    assert hub.repos == {}


def test_a_token_that_may_only_read(hub, tmp_path, monkeypatch):
    push(bundle(tmp_path), TARGET)
    monkeypatch.setenv("HF_TOKEN", READER)
    said = refused(tmp_path)
    names(said, "Authorization error", "me/talk", "Hub", "403", "token", "'me'", SETTINGS, AGAIN)


def test_an_organisation_that_is_not_ours(hub, tmp_path):
    said = refused(tmp_path, TARGET._replace(repo="they/talk", repo_type="dataset"))
    names(said, "they/talk", "Hub", "403", "token", "'they'", SETTINGS, AGAIN)


@pytest.mark.parametrize(
    ("refuse", "told"),
    [
        (
            ("POST /commit/", 403, "Private repository storage limit reached"),
            ("Hub", "403", "me's storage"),
        ),
        (
            ("POST /preupload/", 429, "You have reached your rate limit"),
            ("Hub", "429"),
        ),
        (
            ("POST /commit/", 412, "A commit has happened since."),
            ("Hub", "412"),
        ),
        (
            ("POST /commit/", 502, "Bad gateway"),
            ("Hub", "502", "https://status.huggingface.co"),
        ),
    ],
    ids=["full", "rate", "meanwhile", "down"],
)
def test_what_the_hub_refuses(hub, tmp_path, monkeypatch, refuse, told):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    part, status, message = refuse
    hub.refuse[part] = (status, message)
    names(refused(tmp_path), "me/talk", message, *told, AGAIN)


def test_without_a_network(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    names(refused(tmp_path), "me/talk", "Hub", "Connection refused", "network", AGAIN)


def test_a_card_that_the_hub_does_not_take(hub, tmp_path):
    with pytest.raises(PublishError) as raised:
        push(bundle(tmp_path, **{"README.md": b"---\na: [\n---\n"}), TARGET)
    names(raised.value, "while parsing a flow node", "Hub", "400")
    assert len(hub.repos["model", "me/talk"].commits) == 1


def test_a_public_repository_is_not_written_to_where_private_was_asked(hub, tmp_path):
    push(bundle(tmp_path), TARGET._replace(private=False))
    repo = hub.repos["model", "me/talk"]
    assert not repo.private
    names(refused(tmp_path), "private: true", "private: false", "me/talk", "public", "Hub")
    assert len(repo.commits) == 2


def test_a_repository_that_holds_other_work_is_left_alone(hub, tmp_path):
    hub.repos["model", "me/talk"] = Repo(private=True)
    hub.repos["model", "me/talk"].add("mine", {"README.md": b"#", "model.safetensors": b"years of work"})
    names(refused(tmp_path), "me/talk", "model.safetensors", "empty")
    assert hub.repos["model", "me/talk"].head.files["model.safetensors"] == b"years of work"


@pytest.mark.parametrize("secret", [TOKEN, "hf_" + "A1" * 17])
def test_a_file_that_holds_a_token_is_not_sent(hub, tmp_path, secret):
    params = tmp_path / "params.yaml"
    params.write_text(f"key: {secret}\n")
    with pytest.raises(PublishError) as told:
        push(bundle(tmp_path, **{"experiment/params.yaml": params}), TARGET)
    names(told.value, "hf auth login", "experiment/params.yaml", params, "token", "Hub", "HF_TOKEN")
    assert hub.requests == []


def test_the_manifest_names_every_file_and_says_nothing_of_the_day(tmp_path):
    content = json.loads(bundle(tmp_path)["alignslm.json"])
    assert set(content["files"]) == {"README.md", "model.safetensors", "config.json"}
    assert bundle(tmp_path)["alignslm.json"] == bundle(tmp_path)["alignslm.json"]
