"""The front door: what `import alignslm` offers, how light it is, and the examples of docs/python.md as they are."""

import ast
import contextlib
import json
import re
import shutil
import subprocess
import sys

import huggingface_hub.constants
import numpy as np
import polars as pl
import pytest
import soundfile

import alignslm
from alignslm import tables
from alignslm.config.loading import load_experiment
from alignslm.config.pretrained_lm import SlamLMConfig
from alignslm.generation import SpokenLM
from alignslm.judge import JudgeOutput
from alignslm.pairs.diagnosis import NoPairsError
from alignslm.storyworld.corpus import story_texts
from tests.messages import names
from tests.micro import ROOT, edit
from tests.pair_selection import THRESHOLDS, frames, selected, written
from tests.playing_world import build
from tests.test_lm_published import UNITS
from tests.tiny_hub import point_hub_at, serving
from tests.tiny_lm import CONTRACT, naive_log_probs, tiny_lm, tiny_slam

PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("api") / "experiment")


# --- what is offered ---


def test_every_name_is_there_and_any_other_is_an_attribute_error():
    assert all(getattr(alignslm, name).__doc__ for name in alignslm.__all__)
    assert set(alignslm.__all__) <= set(dir(alignslm))
    with pytest.raises(AttributeError, match="has no attribute 'load_everything'"):
        alignslm.load_everything  # noqa: B018


def test_type_checkers_see_the_names_that_are_offered():
    tree = ast.parse((ROOT / "alignslm/__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert sorted(alias.name for line in block.body for alias in line.names) == sorted(alignslm.__all__)
    assert (ROOT / "alignslm/py.typed").exists()


def test_importing_the_package_imports_no_library():
    code = "import sys; before = {*sys.modules}; import alignslm; print(*({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names == {"alignslm"}


# --- the examples ---


def followed(example: str, world, variables: dict | None = None) -> dict:
    """Run an example in the folder of an experiment; return its variables, which the next one may go on from."""
    space = dict(variables or {})
    with contextlib.chdir(world):
        exec(compile(EXAMPLES[example], f"docs/python.md ({example})", "exec"), space)  # noqa: S102 - our own page
    return space


def test_an_example_is_as_short_as_promised():
    code = {name: [line for line in text.splitlines() if line.strip()] for name, text in EXAMPLES.items()}
    assert len(code["continue"]) <= 15
    assert len(code["pairs"]) <= 20
    assert set(code) == {"continue", "candidates", "pairs", "evaluate"}


def test_a_recording_is_continued_as_the_experiment_would_and_recordings_become_candidates(world):
    for folder in ("docs/samples", "recordings"):
        (world / folder).mkdir(parents=True)
    shutil.copy(ROOT / "docs/samples/01-prompt.ogg", world / "docs/samples")
    for number in (1, 2):
        waveform = alignslm.read_audio(ROOT / f"docs/samples/0{number}-prompt.ogg", sample_rate_hz=16000)
        alignslm.write_audio(waveform, world / f"recordings/{number}.wav", sample_rate_hz=16000)
    space = followed("continue", world)
    (expected, *_) = SpokenLM.load("base", root=world).generate(
        world / "docs/samples/01-prompt.ogg", num_continuations=2, temperature=0.8, top_p=0.95, seed=0
    )
    limit = load_experiment(world).params.sampling.max_new_units
    assert space["continuation"].units[: min(100, limit)] == list(expected.units)[: min(100, limit)]
    assert soundfile.info(world / "continuation.wav").frames == len(space["speech"]) > 0

    followed("candidates", world, space)
    rows = pl.read_ndjson(world / "candidates.jsonl")
    assert rows["prompt_id"].to_list() == ["1"] * 5 + ["2"] * 5
    assert rows.group_by("prompt_id").agg(pl.col("split").unique()).sort("prompt_id")["split"].to_list() == [
        ["valid"],
        ["train"],
    ]


def test_texts_become_pairs_and_a_model_trained_on_them(world):
    texts = story_texts(load_experiment(world).corpus.model_copy(update={"num_texts": 400}))
    stories = texts.select(prompt="prompt_text", continuation="continuation_text")
    stories.write_csv(world / "stories.csv")
    rows = [
        {"prompt_id": f"p{number:02d}", "split": "valid" if number % 5 == 0 else "train", "prompt_text": prompt}
        | {"prompt_units": [number, 3, 5], "text": text, "units": [number + 1, 2, at], "finish_reason": "eos"}
        for number, (prompt, continuation) in enumerate(stories.head(10).iter_rows())
        for at, text in enumerate([continuation, "the the the of", "", None])
    ]
    (world / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(world / "experiments/trainer/dpo-nll.yaml", {"max_steps": 2, "batch_size": 4, "min_pairs": 2, "num_evals": 2})
    space = followed("pairs", world)
    pairs = space["selection"].pairs
    assert set(pairs["split"]) == {"train", "valid"}
    assert set(pairs["chosen_units"].list.last()) == {0}
    assert set(pairs["rejected_units"].list.last()) <= {1, 2, 3}
    before = alignslm.load_lm(world / "artifacts/checkpoints/base")
    assert space["lm"].model_id != before.model_id
    assert alignslm.load_lm(world / "aligned").model_id == space["lm"].model_id
    assert [*(world / "aligned/adapter").rglob("adapter_config.json")]


def test_likelihoods_and_benchmarks_are_shown(world, capsys):
    space = followed("evaluate", world)
    assert [len(values) for values in space["logprobs"]] == [5, 2]
    assert space["accuracy"].estimate.n == 2
    assert len(capsys.readouterr().out.splitlines()) == 2


# --- the functions by their definitions ---


def test_log_likelihoods_are_those_of_one_pass_per_token():
    lm = tiny_lm()
    (plain, after), (ended,) = (
        alignslm.log_likelihoods(lm, [[3, 1, 4], [1, 5]], contexts=[[], [9, 2]]),
        alignslm.log_likelihoods(lm, [[3, 1, 4]], include_eos=True),
    )
    encode = lm.vocabulary.encode
    assert plain == pytest.approx(naive_log_probs(lm, encode([3, 1, 4], bos=True)), abs=1e-5)
    assert after == pytest.approx(naive_log_probs(lm, encode([9, 2, 1, 5], bos=True))[-2:], abs=1e-5)
    assert ended == pytest.approx(naive_log_probs(lm, encode([3, 1, 4], bos=True, eos=True)), abs=1e-5)


def test_accuracy_counts_the_pairs_whose_positive_is_likelier():
    lm, rng = tiny_lm(), np.random.default_rng(0)
    positives, negatives = rng.integers(0, 20, (2, 12, 5)).tolist()
    positives[0] = negatives[0]
    left, right = ([values.mean() for values in alignslm.log_likelihoods(lm, side)] for side in (positives, negatives))
    expected = [0.5, *(float(a > b) for a, b in zip(left[1:], right[1:], strict=True))]
    found = alignslm.evaluate(lm, alignslm.minimal_pairs(positives, negatives))
    assert found.estimate.value == pytest.approx(np.mean(expected))
    assert (found.estimate.n, len(found.scores)) == (12, 12)
    assert 0 < found.estimate.value < 1


class CountsWords:
    """A judge as a user writes one."""

    def judge(self, stories):
        return [JudgeOutput(float(len(story.continuation.split())), None, "ok", None) for story in stories]


def test_a_judge_of_ones_own_scores_texts_in_their_order():
    found = alignslm.score(CountsWords(), ["a", "b", "c", "d"], ["one two", None, "", "one two three"])
    assert found["judge_score"].to_list() == [2.0, None, None, 3.0]
    assert found["status"].to_list() == ["ok", "empty", "empty", "ok"]
    assert found["num_words"].to_list() == [2, 0, 0, 3]


ROWS = [
    {"prompt": prompt, "score": score, "units": [number], "split": split}
    for prompt, split in (("p1", "train"), ("p2", "valid"), ("p3", "train"))
    for number, score in enumerate([4.5, 3.2, 2.5, 1.0] if prompt != "p3" else [2.4, 2.6, 2.5, 2.2])
]
RULES = {"min_chosen_score": 3, "max_rejected_score": 2, "min_margin": 1.5, "max_auto_bleu": 0.1}
COUNTS = {"max_per_side": THRESHOLDS.max_chosen_per_prompt, "min_words": THRESHOLDS.min_words}


def candidates(rows):
    scores, continuations, prompts = frames(rows)
    known = prompts.select("prompt_id", "split", prompt_units="units")
    return continuations.join(known, on="prompt_id").join(
        scores.drop("prompt_id", "sample_index"), on="continuation_id"
    )


def test_pairs_are_those_of_the_pipeline(tmp_path):
    expected = selected(written(tmp_path, ROWS))
    found = alignslm.select_pairs(candidates(ROWS), **RULES, **COUNTS)
    named = [name for name in tables.PAIRS.schema if not name.endswith("_id") or name == "prompt_id"]
    assert len(found.pairs)
    assert found.pairs.select(named).equals(expected.pairs.select(named))
    assert found.skipped.equals(expected.skipped_prompts)


def test_candidates_without_a_pair_or_a_column_say_so():
    with pytest.raises(NoPairsError, match=r"judge_score of 4 of 4 continuations: min 2\.20"):
        alignslm.select_pairs(candidates([row for row in ROWS if row["prompt"] == "p3"]), **RULES, **COUNTS)
    with pytest.raises(alignslm.SourceError) as error:
        alignslm.select_pairs(candidates(ROWS).drop("finish_reason", "ppl"), **RULES, **COUNTS)
    names(error.value, "finish_reason", "ppl")


# --- sources ---


def test_a_published_model_is_loaded_from_its_config_and_kept_where_asked(tmp_path):
    original = tiny_slam(tmp_path / "public")
    source = {"kind": "folder", "path": str(tmp_path / "public")}
    config = SlamLMConfig.model_validate({"kind": "slam", "weights": source, "units": UNITS, "dtype": "float32"})
    with pytest.raises(alignslm.SourceError) as error:
        alignslm.load_lm(config)
    names(error.value, "contract=encoder.contract")
    lm = alignslm.load_lm(config, contract=CONTRACT, folder=tmp_path / "kept")
    assert lm.model.get_input_embeddings().weight.equal(original.get_input_embeddings().weight)
    shutil.rmtree(tmp_path / "public")
    assert alignslm.load_lm(config, folder=tmp_path / "kept").model_id == lm.model_id
    assert alignslm.load_lm(tmp_path / "kept").model_id == lm.model_id


def test_a_checkpoint_is_loaded_by_its_hub_id(world, tmp_path, monkeypatch):
    folder = world / "artifacts/checkpoints/base"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with serving() as served:
        point_hub_at(served.url, monkeypatch)
        served.repos["someone/base"] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert alignslm.load_lm("someone/base@main").model_id == alignslm.load_lm(folder).model_id


def test_a_config_that_comes_with_the_library_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    topics = (("boat", "sail sea"), ("horse", "ride field"), ("bread", "bake oven"), ("song", "sing stage"))
    texts = [(f"tom {n} sees a {thing}", f"they {words}") for n, (thing, words) in enumerate(topics * 100)]
    judge = alignslm.load_judge("ngram", texts=texts)
    (right, wrong) = alignslm.score(judge, ["tom sees a boat"] * 2, ["they sail sea", "they bake oven"])["judge_score"]
    assert right > wrong
    with pytest.raises(alignslm.SourceError):
        alignslm.load_judge("mhubert-25hz-km500")  # of another group


def test_what_is_no_source_says_what_is(tmp_path):
    with pytest.raises(alignslm.SourceError) as error:
        alignslm.load_encoder("nowhere")
    names(error.value, "nowhere", "file.yaml", "owner/name")
    with pytest.raises(alignslm.SourceError) as error:
        alignslm.load_judge(tmp_path)
    names(error.value, tmp_path, "judge", "folder")
