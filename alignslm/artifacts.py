"""Paths of all artifacts, stated only here. dvc.yaml names the same ones; a test compares the two."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Artifacts:
    """The artifacts of one experiment; `root` is its folder `artifacts`."""

    root: Path = Path("artifacts")

    @property
    def checked(self) -> Path:
        """Output of the stage `check`: params.yaml was valid."""
        return self.root / "checked.txt"

    @property
    def outside(self) -> Path:
        """Listings of the folders and files outside the repository that configs name, by kind and config."""
        return self.root / "outside"

    @property
    def utterances(self) -> Path:
        """Recordings of the corpus with their texts."""
        return self.root / "corpus" / "utterances"

    @property
    def corpus_summary(self) -> Path:
        """Counts of the corpus."""
        return self.root / "corpus" / "summary.json"

    @property
    def texts(self) -> Path:
        """Clean texts for judges."""
        return self.root / "corpus" / "texts.parquet"

    @property
    def encoder(self) -> Path:
        """Encoder and codebook."""
        return self.root / "encoder"

    @property
    def units(self) -> Path:
        """Units and durations of every utterance."""
        return self.root / "units.parquet"

    @property
    def prompts(self) -> Path:
        """Prompts of every split."""
        return self.root / "prompts.parquet"

    @property
    def prompt_transcripts(self) -> Path:
        """Transcripts of the prompts that have no text."""
        return self.root / "prompt_transcripts.parquet"

    @property
    def prompt_tables(self) -> tuple[Path, Path]:
        """Both tables of prompts, as `prompts.read_prompts` takes them."""
        return self.prompts, self.prompt_transcripts

    @property
    def vocoder(self) -> Path:
        """Units to speech."""
        return self.root / "vocoder"

    @property
    def asr(self) -> Path:
        """Speech to text."""
        return self.root / "asr"

    @property
    def mos(self) -> Path:
        """Predicted naturalness of every system's clips, and the predictor."""
        return self.root / "mos"

    @property
    def checkpoints(self) -> Path:
        """All checkpoints, one folder per name."""
        return self.root / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Evaluation tables, one folder per system."""
        return self.root / "eval"

    @property
    def samples(self) -> Path:
        """Held-out continuations, one folder per system."""
        return self.root / "samples"

    def own_code(self, choice: str) -> Path:
        """Return the folder with the file of code/ that a config such as judge/ngram names."""
        return self.root / "code" / choice

    def judge(self, choice: str) -> Path:
        """Return the folder of a prepared judge."""
        return self.root / "judges" / choice

    def checkpoint(self, name: str) -> Path:
        """Return a model's folder."""
        return self.checkpoints / name

    def rollouts(self, name: str) -> Path:
        """Return the folder of the tables that a checkpoint learnt from online, each by its name."""
        return self.checkpoint(name) / "rollouts"

    def labels(self, name: str) -> Path:
        """Return the labels of the continuations that a checkpoint learnt from by KTO."""
        return self.checkpoint(name) / "labels.parquet"

    def steps(self, name: str) -> Path:
        """Return the folder with the adapters of a checkpoint's saved steps, if they were kept."""
        return self.checkpoint(name) / "steps"

    def guard(self, name: str) -> Path:
        """Return what a guard measured at every step of the checkpoint that it watched."""
        return self.checkpoint(name) / "guard.parquet"

    def reward_model(self, name: str) -> Path:
        """Return the folder of a reward model."""
        return self.root / "reward_models" / name

    def agreement(self, name: str) -> Path:
        """Return how well a reward model agrees with the judge on validation prompts."""
        return self.reward_model(name) / "agreement.json"

    def training(self, name: str) -> Path:
        """Return the training log of a checkpoint."""
        return self.root / "training_logs" / f"{name}.json"

    def named(self, path: str) -> Path:
        """Return the table that `train_on` names: `units`, `pairs/NAME`, `scores/NAME` or `rewards/NAME`."""
        return self.root / f"{path}.parquet"

    def table(self, kind: str, name: str) -> Path:
        """Return a table of one set of preferences.

        `kind` is continuations, transcripts, scores, replies, pairs or skipped_prompts.
        """
        return self.root / kind / f"{name}.parquet"

    def speech(self, name: str) -> Path:
        """Return the folder of spoken continuations."""
        return self.root / "speech" / name

    def pair_counts(self, name: str) -> Path:
        """Return the counts of a set of pairs."""
        return self.root / "pair_counts" / f"{name}.json"

    def benchmark(self, name: str) -> Path:
        """Return the folder of a benchmark's items."""
        return self.root / "benchmarks" / name

    def sample(self, system: str) -> "Sample":
        """Return a system's continuations of the evaluation prompts."""
        return Sample(self.samples / system)

    def best_of(self, name: str, table: str) -> Path:
        """Return a table of a best-of-N by the judge.

        `table` is drawn, transcripts, scores or replies, of all that was drawn, or continuations, the chosen ones.
        """
        return self.root / "best_of" / name / f"{table}.parquet"

    def mos_of(self, system: str) -> Path:
        """Return the predicted scores of one system's clips."""
        return self.mos / f"{system}.parquet"

    def judged(self, system: str) -> Path:
        """Return the judged continuations of a system."""
        return self.evaluations / system / "judged.parquet"

    def item_scores(self, system: str) -> Path:
        """Return the benchmark scores of a system."""
        return self.evaluations / system / "item_scores.parquet"

    def published(self, name: str) -> Path:
        """Return the receipt of a checkpoint: what was pushed where, or that nothing was."""
        return self.root / "published" / f"{name}.json"


@dataclass(frozen=True)
class Sample:
    """One system's continuations of the evaluation prompts, in `folder`."""

    folder: Path

    @property
    def continuations(self) -> Path:
        """Units."""
        return self.folder / "continuations.parquet"

    @property
    def speech(self) -> Path:
        """Their sound."""
        return self.folder / "speech"

    @property
    def transcripts(self) -> Path:
        """Their transcripts."""
        return self.folder / "transcripts.parquet"

    @property
    def recorded(self) -> Path:
        """Transcripts of the ground truth as recorded; only the topline has them."""
        return self.folder / "recorded.parquet"
