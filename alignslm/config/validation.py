"""Validate one file's data, and tell every fault with its line and the nearest right spelling."""

import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from alignslm.config.document import Document, KeyPath
from alignslm.config.model import Config
from alignslm.config.problems import ConfigProblem, closest_match, found, suggestion
from alignslm.config.renamed import RENAMED

T = TypeVar("T")

MESSAGES = {
    "missing": "this key is missing; nothing here has a default",
    "greater_than": "must be above {gt:g}, found {found}",
    "greater_than_equal": "must be at least {ge:g}, found {found}",
    "less_than": "must be below {lt:g}, found {found}",
    "less_than_equal": "must be at most {le:g}, found {found}",
    "string_pattern_mismatch": "must match {pattern}, found {found}",
    "too_short": "needs at least {min_length} entry, found {actual_length}",
    "value_error": "{error}",
    "int_type": "expected a whole number, found {found}",
    "int_from_float": "expected a whole number, found {found}",
    "float_type": "expected a number, found {found}",
    "finite_number": "expected a finite number, found {found}",
    "string_type": "expected text, found {found}",
    "bool_type": "expected true or false, found {found}",
    "dict_type": "expected a mapping of keys to values, found {found}",
    "model_type": "expected a mapping of keys to values, found {found}",
    "tuple_type": "expected a list, found {found}",
    "none_required": "expected nothing (null), found {found}",
}


def validate(document: Document, adapter: TypeAdapter[T], kind: object) -> T | list[ConfigProblem]:
    """Return the value of type `kind` that a document holds, or all its faults.

    Strict JSON rules: the text '5' is not a number and 1 is not a boolean, but a list may become a tuple.
    """
    try:
        return adapter.validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        return list(_merge(_fault(document, detail, kind) for detail in error.errors(include_url=False)))


def _merge(faults: Iterator[ConfigProblem]) -> Iterator[ConfigProblem]:
    """Join the complaints of a union's members about one value into one fault."""
    merged: dict[tuple[int | None, str], ConfigProblem] = {}
    for fault in faults:
        at = (fault.line, fault.key)
        before = merged.get(at)
        message = fault.message if before is None else f"{before.message}; or: {fault.message}"
        merged[at] = ConfigProblem(fault.file, fault.line, fault.key, message)
    yield from merged.values()


def _fault(document: Document, detail: ErrorDetails, kind: object) -> ConfigProblem:
    path = _path_in(document, detail)
    message = _message(document, detail, path, kind)
    if detail["type"] == "value_error":
        path, message = _named_first(document, path, message)
    return ConfigProblem(document.name, document.line(path), ".".join(path), message)


def _path_in(document: Document, detail: ErrorDetails) -> KeyPath:
    """Return the path in the file: pydantic's, without the names of union members that it interleaves."""
    *outer, last = detail["loc"] or ("",)
    path: KeyPath = ()
    for step in outer:
        if (*path, str(step)) in document.lines:
            path = (*path, str(step))
    stands = (*path, str(last)) in document.lines
    if detail["type"].startswith("union_tag"):
        return (*path, str(last), "kind") if stands else (*path, "kind")
    return (*path, str(last)) if stands or detail["type"] == "missing" else path


def _named_first(document: Document, path: KeyPath, message: str) -> tuple[KeyPath, str]:
    """Find the key that a validator's message begins with, "min_chosen_score (2) must be above ...".

    A dotted key, "checkpoints.r1.init_from leads to ...", is then taken off the message: the fault shows it anyway.
    """
    first, _, rest = message.partition(" ")
    named = (*path, *first.split("."))
    if named not in document.lines:
        return path, message
    return named, rest if "." in first else message


def _message(document: Document, detail: ErrorDetails, path: KeyPath, kind: object) -> str:
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            renamed = f"this key is gone; write {RENAMED.get(path[-1])}"
            unknown = "unknown key" + _key_suggestion(document, detail, path, kind)
            return renamed if path[-1] in RENAMED else unknown
        case "union_tag_not_found":
            return f"this key is missing; it may be {', '.join(kinds_at(kind, _location(detail)))}"
        case "union_tag_invalid":
            return f"unknown kind {context['tag']!r}" + suggestion(context["tag"], kinds_at(kind, _location(detail)))
        case "literal_error":
            guess = closest_match(str(detail["input"]), re.findall(r"'([^']*)'", context["expected"]))
            hint = f"; did you mean {guess!r}?" if guess else ""
            return f"must be {context['expected']}, found {found(detail['input'])}{hint}"
        case known if known in MESSAGES:
            return MESSAGES[known].format(found=found(detail["input"]), **context)
        case _:
            return f"{detail['msg']}, found {found(detail['input'])}"


def _key_suggestion(document: Document, detail: ErrorDetails, path: KeyPath, kind: object) -> str:
    parent = document.value(path[:-1])
    present = parent if isinstance(parent, dict) else {}
    known = keys_at(kind, _location(detail)[:-1])
    absent = [key for key in known if key not in present]  # the intended key is more likely missing than repeated
    return suggestion(path[-1], absent if closest_match(path[-1], absent) else known, always_list=False)


def keys_at(kind: object, loc: KeyPath) -> list[str]:
    """Return the keys that a type allows at pydantic's location `loc` (which names union members by their kind)."""
    return [key for model in _models_at(kind, loc) if _is_config(model) for key in model.model_fields]


def kinds_at(kind: object, loc: KeyPath) -> list[str]:
    """Return every value that `kind:` may take at pydantic's location `loc`."""
    return [name for model in _models_at(kind, loc) for name in _kind_of(model)]


def _models_at(kind: object, loc: KeyPath) -> list[Any]:
    models = list(_members(kind))
    for step in loc:
        tagged = [model for model in models if step in _kind_of(model)]
        models = tagged or [inner for model in models for inner in _members(_below(model, step))]
    return models


def _location(detail: ErrorDetails) -> KeyPath:
    return tuple(str(step) for step in detail["loc"])


def kinds(kind: object) -> list[str]:
    """Return every value that `kind:` may take in a type."""
    return [name for model in _members(kind) for name in _kind_of(model)]


def _below(model: Any, step: str) -> object:
    if _is_config(model):
        return model.model_fields[step].annotation if step in model.model_fields else None
    return get_args(model)[1] if get_origin(model) is dict else None


def _members(kind: object) -> Iterator[Any]:
    """Yield the members of a union, however it is annotated; another type yields itself."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in {Union, UnionType}:
        for member in get_args(kind):
            yield from _members(member)
    elif kind is not None:
        yield kind


def _is_config(model: object) -> bool:
    return isinstance(model, type) and issubclass(model, Config)


def _kind_of(model: Any) -> tuple[str, ...]:
    field = model.model_fields.get("kind") if _is_config(model) else None
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()
