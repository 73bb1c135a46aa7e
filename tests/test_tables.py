import random

import polars as pl
import pyarrow as pa
import pytest

from alignslm import tables
from alignslm.provenance import ContractError, UnitContract
from alignslm.tables import TableError
from tests.messages import names

CONTRACT = UnitContract(
    encoder="mfcc-kmeans",
    revision="1",
    sample_rate_hz=16000,
    frame_rate_hz=25.0,
    layer=None,
    padding="none",
    codebook_sha256="ab",
    num_units=100,
    deduplicated=True,
)


def units_frame(ids=("b", "a")):
    return pl.DataFrame(
        {
            "utterance_id": list(ids),
            "split": ["train"] * len(ids),
            "units": [[1, 2]] * len(ids),
            "durations": [[3, 4]] * len(ids),
        },
        schema=dict(tables.ENCODED.schema),
    )


def test_round_trip_sorts_by_key_and_keeps_the_contract(tmp_path):
    path = tmp_path / "units.parquet"
    tables.write(units_frame(), tables.ENCODED, path, CONTRACT)
    assert tables.read(tables.ENCODED, path).equals(units_frame().sort("utterance_id"))
    assert tables.contract_of(tables.ENCODED, path) == CONTRACT


def test_equal_tables_are_equal_bytes_whatever_the_row_order(tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    tables.write(units_frame(("a", "b")), tables.ENCODED, one, CONTRACT)
    tables.write(units_frame(("b", "a")), tables.ENCODED, two, CONTRACT)
    assert one.read_bytes() == two.read_bytes()


def test_every_fault_is_listed(tmp_path):
    frame = units_frame(("a", "a")).with_columns(split=pl.lit(None, pl.String))
    with pytest.raises(TableError) as error:
        tables.write(frame, tables.ENCODED, tmp_path / "units.parquet")
    names(error.value, "split", "utterance_id", "'a'", f"{tmp_path}/units.parquet", "2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_table_says_how_to_get_it(tmp_path):
    with pytest.raises(TableError) as raised:
        tables.read(tables.ENCODED, tmp_path / "units.parquet")
    names(raised.value, "dvc repro", "dvc pull", "empty")


def test_a_truncated_file_is_one_clear_error(tmp_path):
    path = tmp_path / "units.parquet"
    tables.write(units_frame(), tables.ENCODED, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError) as raised:
        tables.read(tables.ENCODED, path)
    names(raised.value, "dvc repro")


def test_a_flipped_bit_is_one_clear_error_and_never_another_number(tmp_path):
    """Without checksums of pages four flips of five would give other numbers, and no error."""
    path, chance = tmp_path / "units.parquet", random.Random(0)
    tables.write(units_frame([f"{number:04d}" for number in range(2000)]), tables.ENCODED, path, CONTRACT)
    good, content = tables.read(tables.ENCODED, path), path.read_bytes()
    refused = 0
    for _ in range(100):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            assert tables.read(tables.ENCODED, path).equals(good)
        except TableError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right
            assert "run `dvc repro`" in str(error)  # noqa: PT017
    assert refused > 80


def test_batches_are_the_table_whatever_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr("alignslm.tables.writing.GROUP_ROWS", 3)
    frame = units_frame([f"{number:02d}" for number in range(11)])
    tables.write(frame, tables.ENCODED, tmp_path / "one.parquet")
    tables.write_shards([frame], tables.ENCODED, tmp_path / "many", part_rows=4)
    for path in (tmp_path / "one.parquet", tmp_path / "many"):
        for rows, sizes in ((1, [1] * 11), (4, [4, 4, 3]), (50, [11])):
            made = list(tables.batches(tables.ENCODED, path, rows=rows))
            assert list(map(len, made)) == sizes
            assert pl.concat(made).equals(frame)
        narrow = list(tables.batches(tables.ENCODED, path, rows=50, columns=["units", "utterance_id"]))
        assert narrow[0].columns == ["units", "utterance_id"]


def test_batches_verify_as_reading_does(tmp_path):
    tables.write_shards([units_frame(("a", "b"))], tables.ENCODED, tmp_path / "units", part_rows=1)
    first, second = sorted((tmp_path / "units").iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(TableError) as told:
        list(tables.batches(tables.ENCODED, tmp_path / "units", rows=1))
    names(told.value, "'b'", f"{tmp_path}/units", "1")


def test_a_table_grown_out_of_order_does_not_appear(tmp_path, monkeypatch):
    monkeypatch.setattr("alignslm.tables.writing.GROUP_ROWS", 1)
    with pytest.raises(TableError) as raised:
        tables.write_frames([units_frame(("b",)), units_frame(("a",))], tables.ENCODED, tmp_path / "units.parquet")
    names(raised.value, "'a'", "'b'")
    assert list(tmp_path.iterdir()) == []


def test_another_table_or_version_is_refused(tmp_path):
    path = tmp_path / "units.parquet"
    tables.write(units_frame(), tables.ENCODED, path)
    with pytest.raises(TableError) as raised:
        tables.read(tables.PROMPTS, path)
    names(raised.value, "units", "prompts", "1")


def test_shards_read_back_as_one_table(tmp_path):
    folder = tmp_path / "units"
    frames = [units_frame(("a",)), units_frame(("b", "c"))]
    assert tables.write_shards(frames, tables.ENCODED, folder, CONTRACT, part_rows=2) == 3
    assert tables.read(tables.ENCODED, folder)["utterance_id"].to_list() == ["a", "b", "c"]
    assert [len(frame) for frame in tables.iterate(tables.ENCODED, folder)] == [2, 1]


def test_overlapping_shards_are_refused_and_nothing_appears(tmp_path):
    frames = [units_frame(("a", "b")), units_frame(("b",))]
    with pytest.raises(TableError) as raised:
        tables.write_shards(frames, tables.ENCODED, tmp_path / "units", part_rows=2)
    names(raised.value, "'b'", "1")
    assert not (tmp_path / "units").exists()


def test_an_open_foreign_key_names_the_first_orphan():
    child, parent = pl.DataFrame({"prompt_id": ["p1", "p9"]}), pl.DataFrame({"prompt_id": ["p1"]})
    with pytest.raises(TableError) as raised:
        tables.require_keys(child, "prompt_id", parent, "prompt_id", names="pairs to prompts")
    names(raised.value, "prompt_id", "'p9'", "1")


def test_contracts_name_both_sides_and_every_difference():
    other = CONTRACT.model_copy(update={"codebook_sha256": "cd", "num_units": 50})
    with pytest.raises(ContractError) as error:
        CONTRACT.require(other, mine="vocoder", theirs="units")
    names(error.value, "'ab'", "'cd'", "codebook_sha256", "num_units", "100", "50")


@pytest.mark.parametrize("cuts", [[3], [1, 1, 1], [2, 1], [0, 3]])
def test_parts_do_not_show_how_the_rows_came(tmp_path, cuts):
    rows, frames = units_frame(("a", "b", "c")), []
    for size in cuts:
        frames.append(rows[:size])
        rows = rows[size:]
    tables.write_shards(frames, tables.ENCODED, tmp_path / "units", CONTRACT, part_rows=2)
    tables.write_shards([units_frame(("a", "b", "c"))], tables.ENCODED, tmp_path / "whole", CONTRACT, part_rows=2)
    names = ["part-00000.parquet", "part-00001.parquet"]
    assert sorted(part.name for part in (tmp_path / "units").iterdir()) == names
    assert all((tmp_path / "units" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_chunks_in_memory_do_not_show_in_the_file(tmp_path):
    rows = [
        {
            "continuation_id": f"c{number:02d}",
            "audio": {"bytes": bytes([number]) * 5000, "path": "x"},
            "num_samples": 1,
            "sample_rate_hz": 1,
            "status": "ok",
        }
        for number in range(60)
    ]
    frame = pl.DataFrame(rows, schema=dict(tables.SPEECH.schema))
    for name, frames in {"one": [frame], "many": frame.iter_slices(7)}.items():
        tables.write_shards(frames, tables.SPEECH, tmp_path / name)
    part = "part-00000.parquet"
    assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "many" / part).read_bytes()


def test_batches_that_were_read_are_let_go(tmp_path, monkeypatch):
    """pyarrow's own iterator of batches keeps all of them until its end."""
    monkeypatch.setattr("alignslm.tables.writing.GROUP_ROWS", 2000)
    ids = [f"{number:06d}" for number in range(60_000)]
    frame = units_frame(ids).with_columns(split=pl.Series(ids))
    tables.write(frame, tables.ENCODED, tmp_path / "units.parquet")
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in tables.batches(tables.ENCODED, tmp_path / "units.parquet", rows=2000)]
    assert len(held) == 30
    assert max(held) - before < frame.estimated_size() / 10  # a batch or two; all of them are ten times as much
