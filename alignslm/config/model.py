"""The pydantic model every parameter class derives from."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen; an unknown key is an error, so a misspelt `-S +key=value` cannot be ignored silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("has a user or a password before the @, which would be printed and published; remove them")
    if not parts.hostname or parts.port == 0:  # reading an invalid port raises ValueError
        raise ValueError("names no server, as http://HOST:PORT/PATH does")
    return url


# A URL is part of messages, artifacts and cards, so it must not contain a secret.
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$"), AfterValidator(_public_url)]
# Valid file names on every system: a config is a file of experiments/.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
# The key of a set of preferences, checkpoint, system or benchmark is also a column, and part of keys with dots.
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
# Upper bounds are beyond all use, but within what memory, seconds and floats can hold.
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveCount = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=10_000)]  # processes, layers, answers to a question
Size = Annotated[int, Field(ge=1, le=2**20)]  # of an array's side: widths, positions, samples of a window
Positive = Annotated[float, Field(ge=1e-12, le=1e9)]
NotNegative = Annotated[float, Field(ge=0.0, le=1e9)]
Temperature = Annotated[float, Field(ge=1e-4, le=100)]  # below, a softmax in float32 overflows; 1e-4 is greedy
TopP = Annotated[float, Field(ge=1e-6, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

Autocast = Annotated[
    Literal["float32", "bfloat16"], Field(description="precision of matrix products; weights stay fp32")
]
Dtype = Annotated[Literal["float32", "bfloat16"], Field(description="dtype of weights and computation")]
