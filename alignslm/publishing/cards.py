"""The cards: what a reader of the repository must know, every number from the artifacts."""

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import DatasetCardData, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignslm.config.experiment import Experiment
from alignslm.config.publishing import HubPublishing
from alignslm.publishing.lineage import Lineage

FENCE = "```python"  # not in the templates: formatters of Markdown would take their gaps for code
TAGS = ["alignslm", "align-slm", "textless", "spoken-language-model", "speech", "preference-optimization"]


class Published(NamedTuple):
    """What is published, and where: both cards are written from it. Names are filled in."""

    experiment: Experiment
    config: HubPublishing
    round: str
    lineage: Lineage
    artifacts: Path
    model_repo: str | None
    dataset_repo: str | None

    @property
    def tag(self) -> str:
        """The tag of this push."""
        return self.config.tag.replace("{round}", self.round).replace("{experiment}", self.lineage.experiment_id)


def render(template: str, metadata: ModelCardData | DatasetCardData, **values: object) -> bytes:
    """Return a card: the metadata block, then the template filled in. A value that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 (Markdown, of values that are checked parameters and numbers)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template).render(python=FENCE, **values)
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}".encode()


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a table whose first column names the row and whose others are numbers."""
    bound = [[cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") for cell in row] for row in rows]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *bound]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
