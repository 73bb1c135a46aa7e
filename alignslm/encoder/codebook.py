"""k-means codebooks: read from the formats they are published in, and the nearest centroid of a point."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

from alignslm.config.sources import HubSource, Source
from alignslm.encoder.joblib_arrays import JoblibError, read_attributes
from alignslm.encoder.waveforms import EncoderError
from alignslm.fetching import download
from alignslm.provenance import file_sha256

TIE = 1e-12
"""Squared distances that differ by less than this fraction of |point|^2 + |centroid|^2 count as equal (float64 rounds
at 2e-16, and a matrix product of a thousand terms loses three digits)."""

_FORMATS = (".safetensors", ".npy", ".bin", ".joblib", ".pkl")
_ROWS_AT_ONCE = 8192


def nearest(points: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return (points,) int64, the index of each point's nearest centroid; the lowest index among equals.

    Points (points, width) may be of any dtype; distances are float64 on their device, |p|^2 - 2 pc + |c|^2, so that
    neither cancellation nor the number of rows decides between two centroids. Equal means within TIE.
    """
    centroids = codebook.to(points.device, torch.float64)
    return torch.cat([_nearest(rows.to(torch.float64), centroids) for rows in points.split(_ROWS_AT_ONCE)])


def _nearest(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    scale = points.square().sum(1, keepdim=True) + centroids.square().sum(1)
    distance = scale - 2 * points @ centroids.T
    best = distance.min(1, keepdim=True).values
    return (distance <= best + TIE * scale).to(torch.uint8).argmax(1)


def fit_centroids(points: np.ndarray, *, num_units: int, seed: int) -> np.ndarray:
    """Fit k-means on points (frames, width): float32 (num_units, width). EncoderError if there are too few."""
    if len(points) < num_units:
        raise EncoderError(
            f"the utterances give {len(points)} frames, fewer than {num_units} units (num_units). "
            "Raise fit_utterances or lower num_units."
        )
    from sklearn.cluster import KMeans  # a second that encoding, which has its codebook, need not wait

    with threadpool_limits(limits=1):  # several threads add in varying order: another codebook every run
        means = KMeans(num_units, n_init=1, random_state=seed, algorithm="lloyd").fit(points)
    return means.cluster_centers_.astype(np.float32)


def load_codebook(source: Source, *, num_units: int) -> tuple[np.ndarray, str]:
    """Fetch a codebook: float32 (num_units, width) and the identity of its file.

    EncoderError if the file is not a codebook, has another number of centroids, or is a pickle without a given hash.
    """
    path, identity = download(source, patterns=[f"*{suffix}" for suffix in _FORMATS])
    file = _only_file(path)
    centroids = _read(file, source)
    if centroids.ndim != 2 or not np.issubdtype(centroids.dtype, np.floating) or not np.isfinite(centroids).all():
        raise EncoderError(
            f"codebook {file}: {centroids.dtype} of shape {centroids.shape} is not a codebook, "
            "which is (units, features) of finite numbers"
        )
    if len(centroids) != num_units:
        raise EncoderError(
            f"codebook {file} has {len(centroids)} centroids, but num_units is {num_units}. "
            "Set num_units, or choose another codebook, in experiments/encoder/."
        )
    return np.ascontiguousarray(centroids, np.float32), identity


def _only_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in _FORMATS)
    if len(files) != 1:
        listed = ", ".join(file.name for file in files[:5])
        raise EncoderError(
            f"codebook {path} has {len(files)} files that may be one ({listed}). "
            "Choose one file, with kind: url or kind: folder."
        )
    return files[0]


def _read(file: Path, source: Source) -> np.ndarray:
    try:
        match file.suffix:
            case ".safetensors":
                return _single(load_file(file), file)
            case ".npy":
                return np.load(file, allow_pickle=False)
            case ".bin" | ".joblib" | ".pkl":
                _require_pinned(source, file)
                return _centres(read_attributes(file))
            case other:
                known = ", ".join(_FORMATS)
                raise EncoderError(f"codebook {file}: {other or 'no suffix'} is not supported; supported: {known}")
    except (SafetensorError, JoblibError, ValueError, EOFError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(f"codebook {file} cannot be read as {file.suffix}: {error}") from error


def _single(tensors: dict[str, np.ndarray], file: Path) -> np.ndarray:
    if len(tensors) != 1:
        raise EncoderError(f"codebook {file} has {len(tensors)} tensors ({', '.join(sorted(tensors))}), expected one")
    return next(iter(tensors.values()))


def _centres(attributes: dict[str, object]) -> np.ndarray:
    centres = attributes.get("cluster_centers_")
    if not isinstance(centres, np.ndarray):
        raise JoblibError(
            f"it is not a fitted k-means: no cluster_centers_ among {', '.join(sorted(attributes)) or 'nothing'}"
        )
    return centres


def _require_pinned(source: Source, file: Path) -> None:
    """Reject a pickle without a given hash: it is a program, although none of it is run here."""
    if not isinstance(source, HubSource) and source.sha256:
        return
    raise EncoderError(
        f"codebook {file} is a joblib pickle, and reading a pickle may run code: it is read only if its sha256 is "
        f"given. If you trust this file, write codebook: {{kind: folder, path: {file}, sha256: {file_sha256(file)}}}; "
        "or give the centroids as .npy or .safetensors."
    )
