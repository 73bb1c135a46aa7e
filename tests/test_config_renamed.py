"""Every key that once had another name is answered with the one of now, and that one exists."""

import re

import pytest

import alignslm.config.experiment as _  # noqa: F401 (defines every model below)
from alignslm.config.execution import Execution  # noqa: F401
from alignslm.config.loading import load_experiment
from alignslm.config.model import Config
from alignslm.config.presets import Preset  # noqa: F401
from alignslm.config.problems import ConfigError
from alignslm.config.renamed import RENAMED
from tests.sample_experiment import write_experiment


def models(base=Config):
    return {base}.union(*map(models, base.__subclasses__()))


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_answered_with_one_that_exists(old, tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path))
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(f"{text}{old}: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment()
    last = text.count("\n") + 1
    assert f"params.yaml:{last}: {old}: this key is gone; write {RENAMED[old]}" in str(caught.value).splitlines()[-1]
    key = re.match(r"\w+", RENAMED[old]).group()
    assert key == "nothing" or any(key in model.model_fields for model in models()), f"no file has the key {key}"
