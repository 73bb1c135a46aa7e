import polars as pl
import pytest

from alignslm.shards import discard, map_shards, work_folder

ROWS = pl.DataFrame({"id": list(range(10))})


def double(frame):
    return frame.with_columns(twice=pl.col("id") * 2)


def run(folder, function=double, shard_rows=3):
    return pl.concat(map_shards(ROWS, function, folder=folder, shard_rows=shard_rows, label="work"))


@pytest.mark.parametrize("shard_rows", [1, 3, 10, 99])
def test_the_result_does_not_depend_on_shard_size(tmp_path, shard_rows):
    assert run(tmp_path, shard_rows=shard_rows).equals(double(ROWS))


def test_an_interrupted_run_is_taken_up(tmp_path, capsys):
    def dies_at_six(frame):
        if 6 in frame["id"]:
            raise KeyboardInterrupt
        return double(frame)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dies_at_six)
    asked = []

    def remembers(frame):
        asked.extend(frame["id"])
        return double(frame)

    assert run(tmp_path, remembers).equals(double(ROWS))
    assert asked == [6, 7, 8, 9]
    assert "work: shard 1 of 4 kept from an interrupted run" in capsys.readouterr().out


DAMAGES = [lambda data: data[:-7], lambda data: data[:50] + b"\x00" + data[51:], lambda _: b""]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_redone(tmp_path, damage):
    run(tmp_path)
    part = sorted(tmp_path.rglob("part-*.parquet"))[1]
    part.write_bytes(damage(part.read_bytes()))
    assert run(tmp_path).equals(double(ROWS))


def test_work_is_found_again_only_under_equal_parameters_and_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "input"
    source.write_text("one")
    first = work_folder("scores", params={"seed": 0}, inputs=[source])
    assert work_folder("scores", params={"seed": 0}, inputs=[source]) == first
    assert work_folder("scores", params={"seed": 1}, inputs=[source]) != first
    source.write_text("two")
    assert work_folder("scores", params={"seed": 0}, inputs=[source]) != first
    discard(first)
    assert not first.parent.exists()
