"""Choices of a predicted mean opinion score: how good speech sounds, as a network believes listeners would say."""

from typing import Annotated, Literal

from pydantic import Field

from alignslm.config.model import Config, PositiveCount
from alignslm.config.sources import Source

MaxClips = Annotated[
    PositiveCount | None,
    Field(description="clips of a system that are rated, the same prompts for all systems; null rates every clip"),
]


class DNSMOSConfig(Config):
    """DNSMOS (Reddy et al., 2021 and 2022), from the networks in the wheel `speechmos`: offline, no torch.

    Metrics `dnsmos_ovrl`, `dnsmos_sig` and `dnsmos_bak` (ITU-T P.835: overall, signal, background) and
    `dnsmos_p808` (ITU-T P.808), each about 1 to 5.
    """

    kind: Literal["dnsmos"]
    release: Literal["speechmos-0.0.1.1"] = Field(description="version of the network files; their hashes are checked")
    personalized: bool = Field(description="the P.835 network that also penalizes other talkers")
    segments: Literal["all", "first"] = Field(
        description="`all` averages over 9 s windows a second apart, as published; `first` rates one window, "
        "enough for clips below 9 s, at a fifth of the cost"
    )
    max_clips: MaxClips


class TorchScriptMOSConfig(Config):
    """A network exported as TorchScript: one waveform in, (1, samples) as `samples` says, one number out.

    This is how UTMOS is passed around on the Hub. What needs code of its own (fairseq, torch.hub) does not fit.
    """

    kind: Literal["torchscript"]
    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="the metric's name in tables and report")]
    weights: Source
    file: str = Field(description="name of the TorchScript file inside the repository or folder")
    sample_rate_hz: PositiveCount
    samples: Literal["float32", "int16"] = Field(description="[-1, 1], or whole numbers to 32767")
    max_clips: MaxClips


MosConfig = Annotated[DNSMOSConfig | TorchScriptMOSConfig, Field(discriminator="kind")]
