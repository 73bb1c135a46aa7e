"""Codebooks in every published format, and nearest centroids against scipy's distances."""

import hashlib
import os
import sys
import types
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.spatial.distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.cluster import KMeans, MiniBatchKMeans

from alignslm.config.sources import FolderSource, UrlSource
from alignslm.encoder import codebook as module
from alignslm.encoder.codebook import load_codebook, nearest
from alignslm.encoder.joblib_arrays import read_attributes
from alignslm.encoder.waveforms import EncoderError
from alignslm.fetching import FetchError
from alignslm.provenance import file_sha256
from tests.messages import names
from tests.tiny_hub import serving

POINTS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def fitted(units: int = 5, seed: int = 0) -> KMeans:
    return KMeans(units, n_init=1, random_state=seed).fit(POINTS)


def pinned(path: Path) -> FolderSource:
    return FolderSource(kind="folder", path=str(path), sha256=file_sha256(path))


def unpinned(path: Path) -> FolderSource:
    return FolderSource(kind="folder", path=str(path))


def fault(source, *, num_units: int = 5) -> str:
    with pytest.raises(EncoderError) as error:
        load_codebook(source, num_units=num_units)
    return str(error.value)


# ---- Nearest centroids ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 40), st.integers(2, 30), st.floats(0, 1000))
def test_nearest_is_scipys_nearest_whatever_the_rows_around(seed, rows, width, units, offset):
    rng = np.random.default_rng(seed)
    points, centroids = (rng.normal(size=(n, width)).astype("f4") + np.float32(offset) for n in (rows, units))
    expected = scipy.spatial.distance.cdist(points.astype("f8"), centroids.astype("f8")).argmin(axis=1)
    together = nearest(torch.from_numpy(points), torch.from_numpy(centroids))
    assert together.tolist() == expected.tolist()
    alone = [int(nearest(torch.from_numpy(point[None]), torch.from_numpy(centroids))) for point in points]
    assert alone == expected.tolist()


def test_ties_go_to_the_lowest_index():
    centroids = torch.tensor([[5.0, 5], [1, 0], [-1, 0], [0, 1], [1, 0]])
    points = torch.tensor([[0.0, 0], [5, 5], [-3, 0], [2, 0]])
    assert nearest(points, centroids).tolist() == [1, 0, 2, 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 700))
def test_a_centroid_that_stands_twice_is_always_its_first_self(seed, units):
    rng = np.random.default_rng(seed)
    centroids = torch.from_numpy(rng.normal(size=(units, 768)).astype("f4"))
    found = nearest(torch.from_numpy(rng.normal(size=(9, 768)).astype("f4")), torch.cat([centroids, centroids]))
    assert int(found.max()) < units


def test_more_points_than_are_compared_at_once(monkeypatch):
    points, centroids = torch.from_numpy(POINTS), torch.from_numpy(POINTS[:7])
    whole = nearest(points, centroids)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert nearest(points, centroids).tolist() == whole.tolist()
    assert nearest(points.bfloat16(), centroids)[:7].tolist() == list(range(7))


# ---- Formats ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_format_gives_the_same_centroids(tmp_path, dtype):
    centroids = fitted().cluster_centers_.astype(dtype)
    model = fitted()
    model.cluster_centers_ = centroids
    joblib.dump(model, tmp_path / "km.bin")
    np.save(tmp_path / "km.npy", centroids)
    save_file({"anything": centroids}, tmp_path / "km.safetensors")
    sources = [pinned(tmp_path / "km.bin"), unpinned(tmp_path / "km.npy"), unpinned(tmp_path / "km.safetensors")]
    for source in sources:
        found, identity = load_codebook(source, num_units=5)
        assert (found.dtype, identity) == (np.float32, f"sha256:{file_sha256(Path(source.path))}")
        np.testing.assert_array_equal(found, centroids.astype("f4"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_any_age_and_kind(tmp_path, protocol):
    model = MiniBatchKMeans(5, n_init=1, random_state=np.random.RandomState(0)).fit(POINTS)
    joblib.dump(model, tmp_path / "km.bin", protocol=protocol)
    np.testing.assert_array_equal(load_codebook(pinned(tmp_path / "km.bin"), num_units=5)[0], model.cluster_centers_)


def test_a_pickle_of_a_class_that_no_longer_exists(tmp_path, monkeypatch):
    """As scikit-learn's k-means moved from sklearn.cluster.k_means_ in 0.22."""
    former = types.ModuleType("sklearn.cluster.k_means_")
    former.KMeans = type("KMeans", (), {"__module__": former.__name__})
    monkeypatch.setitem(sys.modules, former.__name__, former)
    model = former.KMeans()
    model.cluster_centers_ = POINTS[:5]
    joblib.dump(model, tmp_path / "km.bin")
    monkeypatch.delitem(sys.modules, former.__name__)
    with pytest.raises(ModuleNotFoundError):
        joblib.load(tmp_path / "km.bin")
    np.testing.assert_array_equal(load_codebook(pinned(tmp_path / "km.bin"), num_units=5)[0], POINTS[:5])


class Evil:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_no_code_of_a_pickle_runs(tmp_path):
    trace = tmp_path / "it-ran"
    model = fitted()
    model.evil = Evil(f"touch {trace}")
    joblib.dump(model, tmp_path / "km.bin")
    found, _ = load_codebook(pinned(tmp_path / "km.bin"), num_units=5)
    np.testing.assert_array_equal(found, model.cluster_centers_)
    assert not trace.exists()
    joblib.load(tmp_path / "km.bin")  # what everybody else does
    assert trace.exists()


def test_an_array_of_objects_which_is_a_pickle_inside_is_refused(tmp_path):
    model = fitted()
    model.more = np.array([Evil("true"), 1], dtype=object)
    joblib.dump(model, path := tmp_path / "km.bin")
    names(fault(pinned(path)), "codebook", path)


def test_a_pickle_without_its_hash_is_refused_with_the_reason(tmp_path):
    joblib.dump(fitted(), path := tmp_path / "km.bin")
    names(fault(unpinned(path)), "kind: folder", "codebook", path, "pickle", "sha256", file_sha256(path))


def test_a_pickle_with_another_hash_is_not_even_opened(tmp_path):
    joblib.dump(fitted(), path := tmp_path / "km.bin")
    with pytest.raises(FetchError) as error:
        load_codebook(FolderSource(kind="folder", path=str(path), sha256="0" * 64), num_units=5)
    names(error.value, path, "sha256", file_sha256(path), "0" * 64)


def test_two_codebooks_of_one_name_and_shape_are_never_confused(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNSLM_CACHE", str(tmp_path / "cache"))
    models = {name: fitted(seed=seed) for seed, name in enumerate(("l9", "mhubert"))}
    with serving() as server:
        for name, model in models.items():
            joblib.dump(model, tmp_path / name)
            content = (tmp_path / name).read_bytes()
            server.files[f"{name}/km.bin"] = content
            digest = hashlib.sha256(content).hexdigest()
            source = UrlSource(kind="url", url=f"{server.url}/{name}/km.bin", sha256=digest)
            found, identity = load_codebook(source, num_units=5)
            assert identity == f"sha256:{digest}"
            np.testing.assert_array_equal(found, model.cluster_centers_)


def test_files_that_are_no_codebook(tmp_path):
    np.save(path := tmp_path / "km.npy", POINTS[:5])
    names(fault(unpinned(path), num_units=500), "codebook", path, "5", "num_units", "500", "experiments/encoder/")
    for content in (POINTS[0], POINTS[:5].astype(int), np.full((5, 4), np.nan)):
        np.save(path, content)
        names(fault(unpinned(path)), "codebook", path, content.dtype, content.shape)
    np.save(path, np.array([Evil("true")]), allow_pickle=True)
    names(fault(unpinned(path)), "codebook", path)
    save_file({"a": POINTS, "b": POINTS}, path := tmp_path / "km.safetensors")
    names(fault(unpinned(path)), "codebook", path, "2", "tensors")
    path.write_bytes(b"nothing of the kind")
    names(fault(unpinned(path)), "codebook", path)
    (path := tmp_path / "km.pt").write_bytes(b"")
    names(fault(unpinned(path)), "codebook", path)


def test_files_that_are_no_joblib_kmeans(tmp_path):
    joblib.dump(fitted(), path := tmp_path / "km.bin", compress=3)
    begins = f"codebook {path} cannot be read as .bin: "
    names(fault(pinned(path)), f"{begins}it")
    joblib.dump(POINTS, path)
    names(fault(pinned(path)), f"{begins}it")
    joblib.dump(KMeans(5), path)
    names(fault(pinned(path)), f"{begins}it", "cluster_centers_", "_sklearn_version")
    joblib.dump(fitted(), path)
    path.write_bytes(path.read_bytes()[:300])
    assert fault(pinned(path)).startswith(f"{begins}it cannot be read to its end: ")


def test_a_folder_must_hold_one_codebook(tmp_path):
    np.save(tmp_path / "one.npy", POINTS[:5])
    assert load_codebook(unpinned(tmp_path), num_units=5)[0].shape == (5, 4)
    np.save(tmp_path / "two.npy", POINTS[:5])
    names(fault(unpinned(tmp_path)), "kind: url", "kind: folder", "codebook", tmp_path, "2", "one.npy", "two.npy")


def test_attributes_that_are_objects_are_inert(tmp_path):
    joblib.dump(fitted(), path := tmp_path / "km.bin")
    attributes = read_attributes(path)
    assert attributes["n_clusters"] == 5
    assert attributes["labels_"].shape == (60,)
