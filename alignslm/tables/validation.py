"""Validation of a schema: types, nulls, key order, and foreign keys."""

import polars as pl

from alignslm.tables.schemas import Table


class TableError(ValueError):
    """A table is missing, corrupt, of another schema, or violates its schema."""


def verify(frame: pl.DataFrame, table: Table, *, where: str) -> None:
    """Raise TableError listing every violation of the schema: columns, types, nulls, key order, duplicates."""
    faults = []
    if dict(frame.schema) != {name: _instance(kind) for name, kind in table.schema.items()}:
        faults.append(f"columns are {dict(frame.schema)}, expected {dict(table.schema)}")
    else:
        required = [name for name in table.schema if name not in table.nullable]
        nulls = {name: frame[name].null_count() for name in required}
        faults += [f"column {name!r} has {count} nulls" for name, count in nulls.items() if count]
        faults += _key_faults(frame.select(table.key))
    if faults:
        raise TableError(f"{where} is not a valid {table.name!r} table: " + "; ".join(faults))


def _key_faults(keys: pl.DataFrame) -> list[str]:
    if keys.width == 1 and (keys.to_series() > keys.to_series().shift(1)).all():  # by far the cheapest proof of both
        return []
    named = tuple(keys.columns)
    if (copies := keys.is_duplicated()).any():
        return [f"key {named} repeats, first at {keys.row(copies.arg_max() or 0)}"]
    if not keys.is_empty() and not keys.equals(keys.sort(named)):
        return [f"rows are not sorted by {named}"]
    return []


def require_later(
    frame: pl.DataFrame, table: Table, last: tuple[object, ...] | None, *, where: str
) -> tuple[object, ...] | None:
    """Return a frame's last key. Raises TableError if its first key is not after `last`, the one before it."""
    if frame.is_empty():
        return last
    keys = frame.select(table.key)
    if last is not None and keys.row(0) <= last:
        raise TableError(f"{where} starts at {keys.row(0)}, at or before {last}; sort first")
    return keys.row(-1)


def _instance(kind: pl.DataType | type[pl.DataType]) -> pl.DataType:
    return kind() if isinstance(kind, type) else kind


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Select the table's columns, cast them to its types and sort by its key."""
    return frame.select(pl.col(name).cast(kind) for name, kind in table.schema.items()).sort(table.key)


def require_keys(child: pl.DataFrame, column: str, parent: pl.DataFrame, parent_column: str, *, names: str) -> None:
    """Raise TableError unless every value of child[column] is a value of parent[parent_column]."""
    missing = child.join(parent, left_on=column, right_on=parent_column, how="anti")[column]
    if len(missing):
        raise TableError(f"{names}: {len(missing)} values of {column!r} have no parent row, first {missing[0]!r}")
