"""`alignslm yield`: every figure against brute force over all choices of the continuations."""

import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from typer.testing import CliRunner

from alignslm import tables
from alignslm.artifacts import Artifacts
from alignslm.cli import app
from alignslm.config.feedback import Weights
from alignslm.config.loading import load_experiment
from alignslm.judge import JudgeInput, load_judge, prepare_judge
from alignslm.pairs.counterfactual import MAX_SUBSETS, Rules, best_of, kl_bound, pair_yield, subsets
from alignslm.pairs.streaming import Batch
from tests.messages import names
from tests.pair_selection import JUDGE_ALONE, QUANTILES, RULES, THRESHOLDS, frames, selected, written
from tests.sample_experiment import write_experiment
from tests.test_tables import CONTRACT

PROMPTS, DRAWS = 9, 5


def rows(seed=0):
    """Nine prompts of five continuations: coarse scores with ties, one empty, one failed, one that repeats itself."""
    rng = np.random.default_rng(seed)
    made = [
        {"prompt": f"p{number}", "id": f"p{number}-m-{draw}", "sample_index": draw, "units": [number, draw]}
        | {"score": float(rng.integers(2, 10)) / 2, "ppl": float(rng.integers(2, 90))}
        | {"num_words": int(rng.integers(1, 9)), "split": "valid" if number == 8 else "train"}
        for number in range(PROMPTS)
        for draw in range(DRAWS)
    ]
    made[3] |= {"status": "empty", "score": None, "ppl": None, "num_words": 0}
    made[11] |= {"status": "failed", "score": None, "ppl": None}
    made[17] |= {"auto_bleu": 0.5}
    return made


def opinions(made, seed=1):
    values = np.random.default_rng(seed).integers(2, 10, len(made)) / 2
    return {row["id"]: None if row.get("status") else float(value) for row, value in zip(made, values, strict=True)}


def table_of(heldout):
    return pl.DataFrame({"continuation_id": list(heldout), "heldout_score": list(heldout.values())})


def batch_of(made):
    return Batch(*frames(made))


@pytest.mark.parametrize("wanted", [2, 3, 5])
def test_pairs_of_fewer_continuations_are_means_over_all_choices(tmp_path, wanted):
    made, heldout = rows(), opinions(rows())
    found = pair_yield(batch_of(made), Rules(JUDGE_ALONE, THRESHOLDS, RULES, wanted), table_of(heldout))
    counts, prompts, pairs = [], [], []
    for number, some in enumerate(combinations(range(DRAWS), wanted)):
        kept = [row for row in made if row["sample_index"] in some]
        (tmp_path / str(number)).mkdir()
        chosen = selected(written(tmp_path / str(number), kept)).pairs.filter(split="train")
        counts.append(len(chosen))
        prompts.append(chosen["prompt_id"].n_unique())
        pairs += chosen.select("chosen_id", "rejected_id", "margin", "chosen_utility").rows()
    assert found.prompts == PROMPTS - 1
    assert found.pairs == pytest.approx(np.mean(counts))
    assert found.prompts_with_pairs == pytest.approx(np.mean(prompts))
    assert found.margin == pytest.approx(np.mean([margin for *_, margin, _ in pairs if margin is not None]))
    assert found.chosen == pytest.approx(np.mean([score for *_, score in pairs]))
    wins = [
        (heldout[left] > heldout[right]) + (heldout[left] == heldout[right]) / 2
        for left, right, *_ in pairs
        if heldout[left] is not None and heldout[right] is not None
    ]
    assert 0 < len(wins) < len(pairs)  # against a side in which nothing was said nobody has an opinion
    assert found.agreement.value == pytest.approx(np.mean(wins))
    low, high = found.agreement.ci95
    assert low < found.agreement.value < high


@pytest.mark.parametrize("selector", [THRESHOLDS, QUANTILES])
@pytest.mark.parametrize("weights", [JUDGE_ALONE, Weights(judge_score=1, ppl=1, auto_bleu=0, num_words=2)])
def test_other_rules_give_the_pairs_that_the_stage_would_make(tmp_path, selector, weights):
    made = rows(seed=4)
    found = pair_yield(batch_of(made), Rules(weights, selector, RULES, DRAWS), None)
    expected = selected(written(tmp_path, made), weights=weights, selector=selector).account.train
    assert expected.pairs > 0
    assert (found.pairs, found.prompts_with_pairs) == (expected.pairs, expected.prompts_with_pairs)
    assert found.margin == pytest.approx(expected.mean_margin)
    assert found.agreement.value is None


def test_best_of_n_is_the_mean_over_all_choices():
    made, heldout = rows(), opinions(rows())
    whole = [f"p{number}" for number in range(PROMPTS - 1) if number not in (0, 2)]  # every continuation scored
    by_prompt = {prompt: [row for row in made if row["prompt"] == prompt] for prompt in whole}
    found = list(best_of(batch_of(made), Rules(JUDGE_ALONE, THRESHOLDS, RULES, DRAWS), table_of(heldout)))
    assert [one.num_continuations for one in found] == [1, 2, 3, 4, 5]
    for one in found:
        best = [
            min(some, key=lambda row: (-row["score"], row["id"]))
            for drawn in by_prompt.values()
            for some in combinations(drawn, one.num_continuations)
        ]
        assert one.prompts == len(whole)
        assert one.score.value == pytest.approx(np.mean([row["score"] for row in best]))
        assert one.heldout_score.value == pytest.approx(np.mean([heldout[row["id"]] for row in best]))
        assert one.score.ci95[0] < one.score.value < one.score.ci95[1]


@pytest.mark.parametrize("num", [1, 2, 5, 16])
def test_the_kl_bound_is_that_of_scores_without_ties(num):
    density = lambda u: num * u ** (num - 1)  # noqa: E731 - of the best of N uniform ranks
    expected = quad(lambda u: density(u) * np.log(density(u)) if u else 0.0, 0, 1)[0]
    assert kl_bound(num) == pytest.approx(expected, abs=1e-6)


def test_of_too_many_choices_some_are_drawn():
    assert len(subsets(5, 3)) == 10
    some = subsets(40, 20)
    assert len(some) == MAX_SUBSETS
    assert some == subsets(40, 20)
    assert all(len(set(one)) == 20 for one in some)


TEXTS = ["tom walks to the beach", "he finds a shell", "she takes it home", "the boat sails away", "tom finds tom tom"]


@pytest.fixture
def here(tmp_path):
    """A small experiment with a round of real tables, and its n-gram judge."""
    root = write_experiment(tmp_path)
    experiment, artifacts, made = load_experiment(root), Artifacts(root / "artifacts"), rows()
    scores, continuations, prompts = frames(made)
    prompts = prompts.with_columns(prompt_text=pl.lit("tom walks along the beach"))
    name = next(iter(experiment.params.preferences))
    artifacts.own_code(f"selector/{experiment.params.selector}").mkdir(parents=True)
    tables.write(scores, tables.SCORES, artifacts.table("scores", name))
    tables.write(continuations, tables.CONTINUATIONS, artifacts.table("continuations", name), CONTRACT)
    tables.write(prompts, tables.PROMPTS, artifacts.prompts, CONTRACT)
    heard = [
        (row["id"], None if row.get("status") else TEXTS[n % 5], row.get("status", "ok"), None, None, None, None)
        for n, row in enumerate(made)
    ]
    transcripts = pl.DataFrame(heard, schema=dict(tables.TRANSCRIPTS.schema), orient="row")
    tables.write(transcripts, tables.TRANSCRIPTS, artifacts.table("transcripts", name))
    tables.write(transcripts.clear(), tables.TRANSCRIPTS, artifacts.prompt_transcripts)
    texts = [JudgeInput(text, f"{a} and {b}") for text in TEXTS for a in TEXTS for b in TEXTS]
    prepare_judge(experiment.heldout_judge, texts, artifacts.judge(experiment.params.heldout_judge), device="cpu")
    return root


def ask(root, *words):
    return CliRunner().invoke(app, ["yield", "-C", str(root), *words])


def test_the_command_answers_for_every_combination_and_draws(here, tmp_path):
    experiment = load_experiment(here)
    plot = tmp_path / "yield.svg"
    ran = ask(here, "min_chosen_score=2.5,4", "num_continuations=2:4", "--json", "--plot", str(plot))
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.output)
    asked = [["min_chosen_score=2.5", "num_continuations=2"], ["min_chosen_score=2.5", "num_continuations=3"]]
    assert [row["settings"] for row in found["rows"]][:3] == [[], *asked]
    assert len(found["rows"]) == 5
    thresholds = next(iter(experiment.params.preferences.values())).model_copy(update={"min_chosen_score": 4.0})
    rules = Rules(experiment.params.weights, experiment.selector, thresholds, 3)
    expected = pair_yield(batch_of(rows()), rules, None)
    assert found["rows"][4]["found"]["pairs"] == pytest.approx(expected.pairs)
    assert found["heldout_judge"] == experiment.params.heldout_judge
    judge = load_judge(experiment.heldout_judge, here / "artifacts/judges" / found["heldout_judge"], device="cpu")
    scores = [judge.judge([JudgeInput("tom walks along the beach", text)])[0].score for text in TEXTS]
    assert found["trades"][0]["best"]["heldout_score"]["value"] == pytest.approx(np.mean(scores))
    assert [(trade["best"]["num_continuations"], trade["prompts"]) for trade in found["trades"]] == [
        (num, 8 * 5 / num) for num in (1, 2, 3, 4, 5)
    ]
    assert found["trades"][4]["pairs"] == pytest.approx(found["rows"][0]["found"]["pairs"])
    assert found["trades"][0]["pairs"] is None
    svg = plot.read_text()
    assert "N=5" in svg
    assert f"{experiment.params.heldout_judge} (held out)" in svg
    names(ask(here).output, "params.yaml", "8 train prompts", "40 judge calls", "best of N")


def test_without_its_heldout_judge_a_run_still_answers(here):
    folder = here / "artifacts/judges"
    folder.rename(here / "away")
    ran = ask(here, "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.output)
    assert found["heldout_judge"] is None
    assert found["rows"][0]["found"]["agreement"] == {"value": None, "ci95": None}
    assert found["trades"][1]["best"]["score"]["value"] > 1
    names(ask(here).output, "dvc pull")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["min_marg=1"], ("min_marg", "min_margin", "weights.ppl", "selector")),
        (["min_margin=9"], ("min_margin=9", "4")),
        (["num_continuations=6"], ("num_continuations=6", "5")),
        (["min_chosen_score=1"], ("min_chosen_score=1", "max_rejected_score")),
        (["judge=nobody"], ("nobody", "ngram")),
        (["--name", "r9"], ("r9", "r1")),
        (["--plot", "plot.png"], ("plot.png", ".svg")),
    ],
)
def test_a_question_that_has_no_answer_says_why(here, words, facts):
    ran = ask(here, *words)
    assert ran.exit_code == 1
    names(ran.output + ran.stderr, *facts)
