"""Choices of publishing: nothing at all, or repositories of the Hugging Face Hub."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from alignslm.config.model import Config, HttpUrl

PLACEHOLDER_OWNER = "your-name"  # in the shipped config; not an account
_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_LONGEST = 96  # characters of a whole repository id, the Hub's own limit


def _repository(value: str) -> str:
    """Reject what the Hub would reject, with the round filled in."""
    filled = value.replace("{round}", "r1")
    if "{" in filled or "}" in filled:
        raise ValueError(f"{value!r} contains braces; only {{round}} is filled in")
    if filled.count("/") != 1:
        raise ValueError(
            f"{value!r} is not a repository id; write owner/name, such as {PLACEHOLDER_OWNER}/alignslm-{{round}}"
        )
    for part in filled.split("/"):
        if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise ValueError(
                f"{value!r} is not a repository id: {part!r} may have letters, digits, '-', '_' and '.', begins with a "
                "letter or digit, does not end in '-', '.' or '.git', and has no '--' or '..'"
            )
    if len(filled) > _LONGEST:
        raise ValueError(f"{value!r} has {len(filled)} characters, at most {_LONGEST} are allowed")
    return value


def _tag(value: str) -> str:
    """Refuse patterns that git would refuse as a tag, or that would give every experiment the same one."""
    filled = value.replace("{round}", "r1").replace("{experiment}", "0f")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", filled) or ".." in filled or filled.endswith((".", ".lock")):
        raise ValueError(
            f"{value!r} is not a tag; letters, digits, '.', '-', '_', {{round}} and {{experiment}} may be in it"
        )
    if "{experiment}" not in value:
        raise ValueError(f"{value!r} has no {{experiment}}, so two experiments would get the same tag; add it")
    return value


RepoPattern = Annotated[
    str, AfterValidator(_repository), Field(description="owner/name; {round} is filled in, so that a round has its own")
]
TagPattern = Annotated[str, AfterValidator(_tag)]
Licence = Annotated[
    str | None,
    Field(
        pattern=r"^[a-z0-9][a-z0-9.+-]*$",
        description="an identifier of the Hub's list, such as mit or cc-by-4.0, your choice; null: none stated",
    ),
]


class NoPublishing(Config):
    """Nothing leaves this machine."""

    kind: Literal["none"]


class ModelRepository(Config):
    """The merged model as a plain transformers folder, and what else is pushed with it."""

    repo: RepoPattern
    license: Licence
    adapter: bool = Field(description="the LoRA adapter, in adapter/")
    base_model: bool = Field(
        description="the base model of the adapter, in start/: needed if it is not published elsewhere"
    )
    speech_models: bool = Field(description="encoder, vocoder and ASR model as prepared here, in experiment/artifacts/")


class DatasetRepository(Config):
    """The round's preference pairs, with audio."""

    repo: RepoPattern
    license: Licence
    prompt_audio: bool = Field(description="recorded speech of the corpus's speakers; without it, units and texts only")
    continuations: bool = Field(description="every continuation that was judged, paired or not")
    evaluation: bool = Field(description="scores of benchmark items and of judged held-out continuations")


class HubPublishing(Config):
    """Repositories of the Hugging Face Hub. The account's token is not a parameter: HF_TOKEN, or `hf auth login`."""

    kind: Literal["hub"]
    rounds: Literal["last", "all"]
    private: bool = Field(description="visibility of a new repository; with true, a public one is never written to")
    tag: TagPattern = Field(description="{experiment}: eight hex digits of what the round depends on in dvc.lock")
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="of the speech, ISO 639")]
    code_url: HttpUrl | None = Field(description="where readers find this code; null where nowhere")
    model: ModelRepository | None
    dataset: DatasetRepository | None

    @model_validator(mode="after")
    def _something(self) -> "HubPublishing":
        if self.model is None and self.dataset is None:
            raise ValueError(
                "model and dataset are both null, so nothing would be pushed; choose publish: none instead"
            )
        if self.model and self.dataset and self.model.repo == self.dataset.repo:
            raise ValueError(f"dataset.repo is model.repo ({self.model.repo}); receipts could not tell them apart")
        return self

    def repositories(self) -> list[tuple[str, str]]:
        """Return (dotted key, pattern) of every repository named."""
        named = {"model.repo": self.model, "dataset.repo": self.dataset}
        return [(key, item.repo) for key, item in named.items() if item is not None]


PublishConfig = Annotated[NoPublishing | HubPublishing, Field(discriminator="kind")]
