"""CTranslate2's file of weights, opened without CTranslate2 and without reading a weight."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `alignslm check` opens such a file only where a config names one
    import numpy as np

WEIGHTS_FILE = "model.bin"
_DTYPES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16", 5: "uint16"}  # 5 is bfloat16


class CTranslate2Error(ValueError):
    """A model.bin is not Whisper as CTranslate2 writes it."""


def read_variables(file: Path) -> dict[str, np.ndarray]:
    """Return the variables as they are stored; they stay in the file until they are used. Raises CTranslate2Error."""
    import numpy as np

    content = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    try:
        version, at = _number(content, 0, "<I")
        kind, at = _text(content, at)
        if (version, kind) != (6, "WhisperSpec"):
            raise CTranslate2Error(
                f"{file} is {kind!r} of format {version}, expected 'WhisperSpec' of format 6; name another model"
            )
        count, at = _number(content, at + 4, "<I")  # after the revision
        found = {}
        for _ in range(count):
            name, at = _text(content, at)
            found[name], at = _array(content, at)
        count, at = _number(content, at, "<I")
        for _ in range(count):  # equal variables are stored once
            name, at = _text(content, at)
            same, at = _text(content, at)
            found[name] = found[same]
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise CTranslate2Error(f"{file} is cut off, or not of CTranslate2; download it again ({error})") from error
    return found


def _number(content: np.ndarray, at: int, kind: str) -> tuple[int, int]:
    """Return a number that starts at a byte, and the byte after it."""
    size = struct.calcsize(kind)
    return struct.unpack(kind, content[at : at + size].tobytes())[0], at + size


def _text(content: np.ndarray, at: int) -> tuple[str, int]:
    length, at = _number(content, at, "<H")
    if at + length > len(content):
        raise struct.error("a name ends outside of it")
    return content[at : at + length - 1].tobytes().decode(), at + length  # a zero byte ends it


def _array(content: np.ndarray, at: int) -> tuple[np.ndarray, int]:
    import numpy as np

    rank, at = _number(content, at, "<B")
    shape = struct.unpack(f"<{rank}I", content[at : at + 4 * rank].tobytes())
    dtype, at = _number(content, at + 4 * rank, "<B")
    num_bytes, at = _number(content, at, "<I")
    if at + num_bytes > len(content):
        raise struct.error(f"{at + num_bytes} bytes are expected, it has {len(content)}")
    array = np.frombuffer(content, _DTYPES[dtype], num_bytes // np.dtype(_DTYPES[dtype]).itemsize, at)
    return array.reshape(shape), at + num_bytes
