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
    if not parts.hostname or parts.port == 0:  # reading the port raises ValueError where it is none
        raise ValueError("names no server, as http://HOST:PORT/PATH does")
    return url


# A URL is part of messages, artifacts and cards, so it may hold no secret.
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$"), AfterValidator(_public_url)]
# What a file may be called on every system: a choice is a file of experiments/.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
# The key of a set of preferences, checkpoint, system or benchmark is also a column, and part of keys with dots.
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

Autocast = Annotated[
    Literal["float32", "bfloat16"], Field(description="precision of matrix products; weights stay fp32")
]
Dtype = Annotated[Literal["float32", "bfloat16"], Field(description="what the weights are kept and computed in")]
