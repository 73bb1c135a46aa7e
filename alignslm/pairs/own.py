"""A user's own selector, with its output checked; the utility that it returns is a user's own reward."""

from pathlib import Path
from typing import TypeAlias

import polars as pl

from alignslm.config.curriculum import JudgedPreferences
from alignslm.config.feedback import SelectorConfig
from alignslm.config.own_code import PythonSelectorConfig
from alignslm.own_code import FOLDER, OwnObject

TRIED_PROMPTS = 3


class OwnSelector:
    """Calls the object's `select(pool, rules)` and checks the two frames it returns.

    The pool has one row per continuation: prompt_id, continuation_id, the columns of the scores table, utility,
    num_units and vetoed. Each frame has a continuation_id per candidate and may have a utility in place of the pool's.
    """

    def __init__(self, config: PythonSelectorConfig, model: OwnObject) -> None:
        self.config, self.model = config, model
        self.min_words = config.min_words
        self._tried = False

    def candidates(self, pool: pl.DataFrame, rules: JudgedPreferences) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows of the chosen and the rejected candidates. Raises OwnCodeError if they break the protocol."""
        chosen, rejected = found = self._select(pool, rules)
        if not self._tried:
            self._tried = True
            for prompt_id in pool["prompt_id"].unique(maintain_order=True)[:TRIED_PROMPTS]:
                alone = self._select(pool.filter(prompt_id=prompt_id), rules)
                if any(
                    not one.equals(all_.filter(prompt_id=prompt_id)) for one, all_ in zip(alone, found, strict=True)
                ):
                    raise self.model.error(f"select chooses differently for prompt {prompt_id} alone and with others")
        return chosen, rejected

    def _select(self, pool: pl.DataFrame, rules: JudgedPreferences) -> tuple[pl.DataFrame, pl.DataFrame]:
        found = self.model.call(pool, rules)
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(side, pl.DataFrame) for side in found)):
            raise self.model.error(f"select returned {type(found).__name__}, expected two DataFrames: chosen, rejected")
        chosen, rejected = (self._rows(side, pool) for side in found)
        short = chosen.filter(pl.col("num_words") < self.min_words)
        if len(short):
            raise self.model.error(f"select chose {short['continuation_id'][0]}, shorter than min_words")
        return chosen, rejected

    def _rows(self, side: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
        """Return a side's rows of the pool, with the utility that the selector gives them."""
        if "continuation_id" not in side.columns:
            raise self.model.error(f"select returned columns {', '.join(side.columns)}, without continuation_id")
        own = [name for name in ("utility",) if name in side.columns]
        rows = pool.drop(own).join(side.select("continuation_id", *own), on="continuation_id")
        if len(rows) != len(side) or rows["continuation_id"].is_duplicated().any():
            raise self.model.error("select returned a continuation_id twice, or one that is not in the pool")
        return rows.sort("prompt_id", "continuation_id")


Selector: TypeAlias = SelectorConfig | OwnSelector


def load_selector(config: SelectorConfig, *, code: Path = FOLDER) -> Selector:
    """Return what `stream_pairs` selects by: the config, or for `kind: python` the object, its source in `code`."""
    if not isinstance(config, PythonSelectorConfig):
        return config
    model = OwnObject(config, code / f"{config.module}.py", method="select")
    model.load(code, device="cpu")
    return OwnSelector(config, model)
