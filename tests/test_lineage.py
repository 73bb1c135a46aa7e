"""`alignslm trace`: chains read from real tables, made by the real selection rule."""

import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from typer.testing import CliRunner

from alignslm import tables
from alignslm.audio import encode_flac
from alignslm.cli import app
from alignslm.config.loading import load_experiment
from alignslm.lineage import LineageError, speech_of, trace
from alignslm.lm.rows import continuation_id
from alignslm.pairs.streaming import Sources
from tests.messages import names
from tests.pair_selection import selected
from tests.sample_experiment import write_experiment

RATE_HZ = 8000
# prompt -> (judge_score, auto_bleu, num_words, status) of its five draws. Thresholds: 3.2, 2.2, margin 1, delta .1.
PLAIN = (0.0, 8, "ok")
DRAWS = {
    "p-pairs": [(4.5, *PLAIN), (3.0, *PLAIN), (2.0, *PLAIN), (4.9, 0.5, 8, "ok"), (4.0, 0.0, 2, "ok")],
    "p-alike": [(3.0, *PLAIN), (3.0, *PLAIN), (2.8, *PLAIN), (2.9, *PLAIN), (3.1, *PLAIN)],
    "p-mixed": [(5.0, *PLAIN), (None, None, 0, "empty"), (None, None, 0, "failed"), (3.0, *PLAIN), (3.1, *PLAIN)],
}


def name_of(prompt: str, draw: int, purpose: str = "r1") -> str:
    return continuation_id(prompt, purpose, "0123456789abcdef", draw)


def frame(table: tables.Table, rows: list) -> pl.DataFrame:
    return tables.conform(pl.DataFrame(rows, schema=dict(table.schema), orient="row"), table)


def tone(hz: float) -> bytes:
    return encode_flac((0.3 * np.sin(2 * np.pi * hz * np.arange(800) / RATE_HZ)).astype(np.float32), RATE_HZ)


def write(rows: list, table: tables.Table, path: Path) -> pl.DataFrame:
    made = frame(table, rows)
    tables.write(made, table, path)
    return made


def drawn(purpose: str) -> list:
    return [
        (name_of(prompt, draw, purpose), prompt, draw, "0123456789abcdef", 7 + draw, [draw, 2, 3], "eos", -3.5)
        for prompt in DRAWS
        for draw in range(5)
    ]


def spoken(purpose: str) -> pl.DataFrame:
    rows = [
        (name_of(prompt, draw, purpose), {"bytes": tone(200 + 50 * draw), "path": None}, 800, RATE_HZ, "ok")
        for prompt in DRAWS
        for draw in range(5)
    ]
    return frame(tables.SPEECH, rows)


def heard(purpose: str) -> list:
    return [
        (name_of(prompt, draw, purpose), f"words {draw}", "ok", 0.9, None, None, None)
        for prompt in DRAWS
        for draw in range(5)
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = write_experiment(tmp_path_factory.mktemp("lineage"))
    folder, experiment = root / "artifacts", load_experiment(root)
    sound = {"bytes": tone(100), "path": None}
    utterances = [
        (f"u-{p}", "train", "ann", "a b c", "a", "b c", 0.05, [0.02, 0.05, 0.1], 800, RATE_HZ, sound) for p in DRAWS
    ]
    tables.write_shards([frame(tables.UTTERANCES, utterances)], tables.UTTERANCES, folder / "corpus" / "utterances")
    prompts = [(p, f"u-{p}", "train", 0.05, 2, [1, 2], [3], None if p == "p-mixed" else "a", "b c") for p in DRAWS]
    write(prompts, tables.PROMPTS, folder / "prompts.parquet")
    write(
        [("p-mixed", "a heard", "ok", 0.5, None, None, None)],
        tables.TRANSCRIPTS,
        folder / "prompt_transcripts.parquet",
    )
    write(drawn("r1"), tables.CONTINUATIONS, folder / "continuations/r1.parquet")
    tables.write_shards([spoken("r1")], tables.SPEECH, folder / "speech/r1")
    write(heard("r1"), tables.TRANSCRIPTS, folder / "transcripts/r1.parquet")
    scores = [
        (name_of(prompt, draw), prompt, draw, score, None if score is None else 9.0, bleu, words, status)
        for prompt, draws in DRAWS.items()
        for draw, (score, bleu, words, status) in enumerate(draws)
    ]
    write(scores, tables.SCORES, folder / "scores/r1.parquet")
    replies = [(name_of(p, d), "story", "ok", f"I say {d}") for p in DRAWS for d in range(5)]
    write(replies, tables.REPLIES, folder / "replies/r1.parquet")
    params = experiment.params
    sources = Sources(*(folder / name for name in ("scores/r1.parquet", "continuations/r1.parquet", "prompts.parquet")))
    made = selected(sources, weights=params.weights, selector=experiment.selector, rules=params.preferences["r1"])
    tables.write(made.pairs, tables.PAIRS, folder / "pairs/r1.parquet")
    tables.write(made.skipped_prompts, tables.SKIPPED_PROMPTS, folder / "skipped_prompts/r1.parquet")
    for system in ("base", "r1"):
        purpose = f"evaluation {system}" if system == "r1" else "evaluation"
        samples = folder / "samples" / system
        write(drawn(purpose), tables.CONTINUATIONS, samples / "continuations.parquet")
        tables.write_shards([spoken(purpose)], tables.SPEECH, samples / "speech")
        write(heard(purpose), tables.TRANSCRIPTS, samples / "transcripts.parquet")
    one = name_of("p-pairs", 0, "evaluation")
    judged = [("base", one, "p-pairs", 0, "judge_score", 3.5), ("base", one, "p-pairs", 0, "heldout_judge_score", None)]
    write(judged, tables.CONTINUATION_METRICS, folder / "eval/base/judged.parquet")
    return root


def chains(root: Path, identity: str):
    return trace(identity, root / "artifacts", load_experiment(root))


def rule(root: Path, prompt: str, draw: int) -> dict:
    (chain,) = chains(root, name_of(prompt, draw)).values()
    (step,) = [step for step in chain.steps if step.title == "rule"]
    return dict(step.facts)


def test_a_pair_gives_both_sides_whole(root):
    pair = f"{name_of('p-pairs', 0)}-{name_of('p-pairs', 2)}"
    found = chains(root, pair)
    assert list(found) == ["chosen", "rejected"]
    assert found["chosen"].continuation_id == name_of("p-pairs", 0)
    assert found["rejected"].continuation_id == name_of("p-pairs", 2)
    titles = ["utterance", "prompt", "model", "continuation", "speech", "transcript", "judge's reply", "scores", "rule"]
    assert [step.title for step in found["rejected"].steps] == titles
    facts = {step.title: step.facts for step in found["rejected"].steps}
    assert facts["utterance"]["utterance_id"] == "u-p-pairs"
    assert facts["prompt"]["units"] == [1, 2]
    assert facts["model"]["checkpoint"] == "base"
    assert facts["model"]["model_id"] == "0123456789abcdef"
    assert (facts["continuation"]["sample_index"], facts["continuation"]["seed"]) == (2, 9)
    assert facts["transcript"]["text"] == "words 2"
    assert facts["judge's reply"]["reply"] == "I say 2"
    assert facts["scores"]["judge_score"] == 2.0


def test_the_rule_is_read_aloud_for_every_fate(root):
    assert rule(root, "p-pairs", 0) == {
        "utility": 4.5,
        "may be chosen": "yes: has a utility; yes: auto_bleu 0 <= 0.1; yes: num_words 8 >= 3; yes: num_units 3 > 0; "
        "yes: utility 4.5 >= min_chosen_score 3.2",
        "may be rejected": "no: nothing was said; no: auto_bleu 0 > 0.1; no: utility 4.5 <= max_rejected_score 2.2",
        "outcome": f"chosen against {name_of('p-pairs', 2)} (margin 2.5), {name_of('p-pairs', 3)} (margin -0.4)",
    }
    vetoed = rule(root, "p-pairs", 3)
    assert "no: auto_bleu 0.5 <= 0.1" in vetoed["may be chosen"]
    assert "yes: auto_bleu 0.5 > 0.1" in vetoed["may be rejected"]
    assert vetoed["outcome"] == f"rejected against {name_of('p-pairs', 0)} (margin -0.4)"
    assert "no: num_words 2 >= 3" in rule(root, "p-pairs", 4)["may be chosen"]
    assert rule(root, "p-pairs", 4)["outcome"] == "in no pair: its pairs are of other continuations of this prompt"
    assert rule(root, "p-alike", 1)["outcome"] == (
        "in no pair: its prompt has none (neither chosen nor rejected candidate)"
    )
    assert rule(root, "p-mixed", 1) == {
        "utility": None,
        "may be chosen": "no: has a utility; no: auto_bleu - <= 0.1; no: num_words 0 >= 3; yes: num_units 3 > 0; "
        "no: utility - >= min_chosen_score 3.2",
        "may be rejected": "yes: nothing was said; no: auto_bleu - > 0.1; no: utility - <= max_rejected_score 2.2",
        "outcome": f"rejected against {name_of('p-mixed', 0)} (margin -)",
    }


@pytest.mark.parametrize(("prompt", "draw"), [(prompt, draw) for prompt in DRAWS for draw in range(5)])
def test_checks_agree_with_what_the_selection_did(root, prompt, draw):
    """Chosen means every check of that side holds; rejected, at least one of the other."""
    read = rule(root, prompt, draw)
    if read["outcome"].startswith("chosen"):
        assert "no:" not in read["may be chosen"]
    if read["outcome"].startswith("rejected"):
        assert "yes:" in read["may be rejected"]


def test_a_prompt_without_text_shows_what_was_heard_in_it(root):
    (chain,) = chains(root, name_of("p-mixed", 0)).values()
    (step,) = [step for step in chain.steps if step.title == "prompt transcript"]
    assert step.facts["text"] == "a heard"


def test_a_sample_shows_its_evaluation_and_no_rule(root):
    found = chains(root, name_of("p-pairs", 0, "evaluation"))
    assert list(found) == ["base"]
    facts = {step.title: step.facts for step in found["base"].steps}
    assert facts["evaluation"] == {"heldout_judge_score": None, "judge_score": 3.5}
    assert "rule" not in facts


def test_speech_is_the_continuations_own(root):
    (chain,) = chains(root, name_of("p-pairs", 3)).values()
    assert speech_of(chain) == (tone(350), RATE_HZ)


def test_an_unknown_id_says_where_it_was_looked_for(root):
    with pytest.raises(LineageError) as told:
        chains(root, "nope")
    names(
        told.value,
        f"alignslm show pairs r1 -c pair_id -C {root}",
        f"alignslm show continuations r1 -c continuation_id -C {root}",
        "r1, base, r1",
        "nope",
        root / "artifacts",
    )


def recommended(text):
    return [command.split() for command in re.findall(r"`alignslm (.*?)`", text)]


@pytest.mark.parametrize("kept", [("continuations", "pairs", "samples"), ("continuations",), ("samples",)])
def test_every_recommended_command_lists_ids_that_trace_knows(root, tmp_path, kept):
    """Where rounds have other names, no pairs exist yet, or only evaluated systems do."""
    write_experiment(tmp_path)
    for part in ("prompts.parquet", "prompt_transcripts.parquet", "corpus", *kept):
        source, target = root / "artifacts" / part, tmp_path / "artifacts" / part
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for kind in {"continuations", "pairs"} & set(kept):
        (tmp_path / f"artifacts/{kind}/r1.parquet").rename(tmp_path / f"artifacts/{kind}/first.parquet")
    result = why(tmp_path, "nope")
    assert result.exit_code == 1
    commands = recommended(result.stderr)
    assert len(commands) == 1 + ("pairs" in kept)
    for command in commands:
        listed = CliRunner().invoke(app, command)
        assert listed.exit_code == 0, listed.stderr
        identity = listed.stdout.splitlines()[2].strip()
        if "pairs" not in kept:
            assert why(tmp_path, identity).exit_code == 0
        else:
            assert why(root, identity).exit_code == 0


def test_nothing_made_yet(tmp_path):
    write_experiment(tmp_path)
    result = why(tmp_path, "nope")
    assert result.exit_code == 1
    names(result.stderr, "'nope'", tmp_path / "artifacts", "nothing was sampled", "`dvc repro`")
    assert recommended(result.stderr) == []


# --- the command ---


def why(root, *words):
    return CliRunner().invoke(app, ["trace", *words, "-C", str(root)])


def test_the_command_prints_the_chain_and_writes_both_sounds(root, tmp_path):
    pair = f"{name_of('p-pairs', 0)}-{name_of('p-pairs', 2)}"
    result = why(root, pair, "--audio", str(tmp_path / "pair.wav"))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"chosen: {name_of('p-pairs', 0)} (round r1)"
    assert "    reply              I say 0" in lines
    assert f"    outcome            rejected against {name_of('p-pairs', 0)} (margin 2.5)" in lines
    assert f"  wrote {tmp_path / 'pair-rejected.wav'}" in lines
    waveform, rate_hz = soundfile.read(tmp_path / "pair-rejected.wav")
    assert (len(waveform), rate_hz) == (800, RATE_HZ)


def test_flac_is_written_as_it_is_stored(root, tmp_path):
    assert why(root, name_of("p-pairs", 1), "-a", str(tmp_path / "one.flac")).exit_code == 0
    assert (tmp_path / "one.flac").read_bytes() == tone(250)


def test_a_sound_file_of_no_known_format_is_refused(root, tmp_path):
    result = why(root, name_of("p-pairs", 1), "-a", str(tmp_path / "one.mp4"))
    assert result.exit_code == 1
    names(result.stderr, tmp_path / "one.mp4")
