"""The dataset card: what a row is, how pairs were made and counted, whose speech it is, what they are unfit for."""

from collections.abc import Iterator, Sequence

from huggingface_hub import DatasetCardData

from alignslm.artifacts import Artifacts
from alignslm.config.experiment import Experiment
from alignslm.lm.checkpoint import CONTRACT_FILE
from alignslm.provenance import UnitContract
from alignslm.publishing import facts, sources
from alignslm.publishing.cards import TAGS, Published, render
from alignslm.publishing.citations import citations
from alignslm.publishing.dataset import Subset

SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
ROWS = {
    "pairs": "a prompt, a chosen and a rejected continuation",
    "rejections": "a prompt that gave no pair, and why",
    "continuations": "a continuation that was judged, paired or not",
    "item_scores": "log-likelihoods of a benchmark's item pair under the model that was trained on these pairs",
    "judged": "one score of one held-out continuation of that model",
}
COLUMNS = {
    "`prompt`": "the utterance of the corpus, cut where the prompt ends",
    "`chosen`, `rejected`": "spoken continuations, without the prompt",
    "`prompt_text`": "the corpus's own text of the prompt, or what the recogniser heard where it has none",
    "`*_text`": "what the recogniser heard in the continuation; null: nothing",
    "`*_llm_score`": "the judge's score, 1 (worst) to 5",
    "`*_ppl`": "the judge's perplexity of the text given the prompt's",
    "`*_auto_bleu`": "share of bigrams that repeat an earlier one of the same text, 0 to 1",
    "`*_num_words`": "words heard",
    "`*_utility`, `margin`": "what ranked the continuations of a prompt, and the difference of the two",
    "`*_finish`": "`eos`: the model ended by itself; `limit`: it was cut at the longest length",
    "`*_units`, `prompt_units`": "what the model read and wrote: unit numbers",
    "`*_id`": "`pair_id` is unique; `prompt_id` ties together what shares a prompt; `utterance_id` names the recording",
}


def dataset_card(published: Published, subsets: Sequence[Subset], *, sample_rate_hz: int) -> bytes:
    """Return README.md of a dataset repository; its metadata tells the viewer which files are which split."""
    experiment = published.experiment
    params, config = experiment.params, published.config.dataset
    assert config is not None  # noqa: S101 (there is no dataset card without a dataset)
    reasons, account = facts.account_rows(facts.read_account(published.artifacts, published.round))
    splits = list(dict.fromkeys(split for subset in subsets for split in subset.num_rows))
    return render(
        "dataset_card.md",
        _metadata(published, subsets),
        **_made(published),
        title=title_of(published),
        repo=published.dataset_repo,
        tag=published.tag,
        round=published.round,
        code=published.config.code,
        toy=facts.is_toy(experiment),
        licence=config.licence,
        prompt_audio=config.prompt_audio,
        pairs_told=" and ".join(f"{count} pairs for {split}" for split, count in subsets[0].num_rows.items()),
        model_told=f"{params.lm}, {params.aligned[published.round].rule.sampled_from}",
        subsets=list(_subset_rows(subsets, splits)),
        split_names=splits,
        columns=[row for row in COLUMNS.items() if config.prompt_audio or row[0] != "`prompt`"],
        sample_rate_hz=sample_rate_hz,
        reasons=reasons,
        account=account,
        training_data=sources.training_data(experiment),
        limits=list(_limits(published)),
        lineage=facts.lineage_rows(published.lineage, experiment, published.artifacts, published.round),
        citations=citations(experiment),
    )


def title_of(published: Published) -> str:
    """Return the dataset's name."""
    params = published.experiment.params
    return f"Spoken preference pairs on {params.corpus}, round {published.round} of {params.lm}"


def _metadata(published: Published, subsets: Sequence[Subset]) -> DatasetCardData:
    config = published.config.dataset
    rows = sum(subsets[0].num_rows.values())
    return DatasetCardData(
        language=published.config.language,
        license=config.licence if config else None,
        pretty_name=title_of(published),
        task_categories=["audio-to-audio"],
        size_categories=next((name for limit, name in SIZES if rows < limit), "n>1M"),
        tags=[*TAGS, "audio", "dpo"],
        configs=[
            {
                "config_name": subset.name,
                **({"default": True} if subset.name == "pairs" else {}),
                "data_files": [{"split": split, "path": f"{subset.name}/{split}-*"} for split in subset.splits],
            }
            for subset in subsets
        ],
    )


def _subset_rows(subsets: Sequence[Subset], splits: Sequence[str]) -> Iterator[list[str]]:
    for subset in subsets:
        yield [f"`{subset.name}`", *(str(subset.num_rows.get(split, "–")) for split in splits), ROWS[subset.name]]


def _made(published: Published) -> dict[str, object]:
    experiment, name = published.experiment, published.round
    params = experiment.params
    contract = UnitContract.model_validate_json(
        (Artifacts(published.artifacts).checkpoint(name) / CONTRACT_FILE).read_text()
    )
    prev = params.aligned[name].rule.sampled_from
    return {
        "prompts_told": f"Beginnings of training and validation utterances ({facts.CUTS[params.prompts.cut]}, at most "
        f"{params.prompts.max_s:g} s).",
        "base_told": _base_told(experiment, prev),
        "draws": params.sampling.draws,
        "temperature": f"{params.sampling.temperature:g}",
        "top_p": f"{params.sampling.top_p:g}",
        "max_units": params.sampling.max_units,
        "vocoder": sources.choice_of(params.vocoder, experiment.vocoder),
        "asr": sources.choice_of(params.asr, experiment.asr),
        "judge": facts.judge_told(experiment),
        "utility": facts.utility_told(experiment),
        "selection": facts.selection_told(experiment, name),
        "encoder": sources.choice_of(params.encoder, experiment.encoder),
        "units": facts.units_told(contract),
    }  # fmt: skip


def _base_told(experiment: Experiment, prev: str) -> str:
    return f"the base model, {sources.base_model(experiment)}" if prev == "base" else f"the model of round `{prev}`"


def _limits(published: Published) -> Iterator[str]:
    yield from facts.shared_limits(published.experiment)
    yield "No person listened to the pairs: chosen means chosen by the judge, from what one recogniser heard."
    yield "Pairs are of one model's own draws; for another model they are off-policy."
