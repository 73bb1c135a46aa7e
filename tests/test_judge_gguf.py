"""Judges from GGUF files: the same weights and judgements as from transformers' form, dequantized once."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from alignslm.config.llm_judges import CausalLMJudgeConfig
from alignslm.config.model_folders import model_folder_problems
from alignslm.judge import JudgeInput, load_judge, prepare_judge
from tests.messages import names
from tests.micro import ROOT
from tests.tiny_gguf import write_gguf
from tests.tiny_judge import values_of, write_judge

STORIES = [
    JudgeInput("tom walks along the beach in the morning", "he finds a shell and takes it home"),
    JudgeInput("kate finds a blue boat on the beach", "she rinses the boat and paints it"),
]


def config_of(path, **changes):
    return CausalLMJudgeConfig.model_validate({**values_of(path), "auc_texts": 0, **changes})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    source = write_judge(folder / "judge", chat=True)
    return source, write_gguf(folder / "judge.gguf", source)


def test_it_judges_as_the_same_weights_in_transformers_form_and_needs_the_file_once(published, tmp_path):
    source, file = published
    judged = []
    for number, path in enumerate((source, file)):
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare_judge(config_of(path), [], folder, device="cpu", root=ROOT)
        judged.append(folder)
    before, after = (LlamaForCausalLM.from_pretrained(path).state_dict() for path in (source, judged[1] / "model"))
    assert {name: torch.equal(tensor, after[name]) for name, tensor in before.items()} == dict.fromkeys(before, True)
    gone = config_of(tmp_path / "gone.gguf")  # what `prepare_judge` left is all that is needed
    expected = load_judge(config_of(source), judged[0], device="cpu").judge(STORIES)
    found = load_judge(gone, judged[1], device="cpu").judge(STORIES)
    assert [one.status for one in found] == ["ok", "ok"]
    assert [one.ppl for one in found] == pytest.approx([one.ppl for one in expected], rel=1e-5)
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], rel=1e-5)


def test_weights_are_kept_in_the_dtype_of_the_choice(published, tmp_path):
    prepare_judge(config_of(published[1], dtype="bfloat16"), [], tmp_path, device="cpu", root=ROOT)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.bfloat16


def test_check_says_what_is_wrong_with_a_file(published, tmp_path):
    file = published[1]
    assert model_folder_problems(config_of(file), file) == []
    (tmp_path / "two").mkdir()
    other = tmp_path / "two" / "judge-Q4_K_M.gguf"
    other.write_bytes(b"<html>")
    (problem,) = model_folder_problems(config_of(other.parent), other.parent)
    names(problem, str(other))
    (problem,) = model_folder_problems(config_of(other), other)
    names(problem, "not a GGUF file", str(other))
