"""A YAML file as plain data, and the line on which each of its keys stands."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from alignslm.config.problems import ConfigProblem, found

KeyPath: TypeAlias = tuple[str, ...]
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
TEXT_TAG = "tag:yaml.org,2002:str"
MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """Content of one file. Lines count from 1; list items are keyed by their index as text."""

    name: str
    data: dict[str, Plain]
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest mapping around it that the file does hold."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def value(self, path: KeyPath) -> Plain:
        """Return the value at a path. Raises KeyError where the file has none."""
        at: Plain = self.data
        for step in path:
            if isinstance(at, dict):
                at = at[step]
            elif isinstance(at, list) and step.isdecimal() and int(step) < len(at):
                at = at[int(step)]
            else:
                raise KeyError(step)
        return at


def read_document(path: Path) -> Document | list[ConfigProblem]:
    """Read a YAML 1.2 mapping, or say everything that keeps it from being one."""
    name = path.as_posix()
    if not path.is_file():
        return [ConfigProblem(name, None, "", "no such file")]
    return parse_document(path.read_bytes().decode("utf-8", errors="replace"), name)


def parse_document(text: str, name: str) -> Document | list[ConfigProblem]:
    """Parse YAML 1.2 text: `1e-06` is a number and `on` is text, unlike in YAML 1.1 readers such as PyYAML."""
    reader = YAML(typ="safe", pure=True)
    try:
        node = reader.compose(text)
        faults = [] if node is None else list(_node_faults(node, name, (), ()))
        data = None if faults else reader.load(text)
    except YAMLError as error:
        return [_syntax_fault(error, name)]
    if not faults and not isinstance(data, dict):
        faults = [ConfigProblem(name, 1, "", f"expected a mapping of keys to values, found {found(data)}")]
    if faults:
        return faults
    # Dates become the text they were written as: YAML 1.2's core schema has none.
    return Document(name, json.loads(json.dumps(data, default=str)), {(): 1, **dict(_lines(node, ()))})


def _syntax_fault(error: YAMLError, name: str) -> ConfigProblem:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        line, opened = error.problem_mark.line + 1, error.context_mark
        since = f" (line {opened.line + 1})" if opened is not None and opened.line + 1 != line else ""
        why = ", ".join(part for part in (error.context and f"{error.context}{since}", error.problem) if part)
        return ConfigProblem(name, line, "", f"no valid YAML: {why}")
    return ConfigProblem(name, None, "", f"no valid YAML: {' '.join(str(error).split())}")


def _node_faults(node: Node, name: str, path: KeyPath, above: tuple[Node, ...]) -> Iterator[ConfigProblem]:
    """Yield repeated keys, keys that are no text, and aliases that contain themselves."""
    if any(node is outer for outer in above):
        yield ConfigProblem(name, node.start_mark.line + 1, ".".join(path), "an alias stands inside its own anchor")
        return
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _node_faults(item, name, (*path, str(index)), (*above, node))
    elif isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in {TEXT_TAG, MERGE_TAG}:
                shown = key.value if isinstance(key.value, str) else "a list or mapping"
                yield ConfigProblem(
                    name, line, ".".join(path), f'a key must be text, found {shown}; quote it: "{shown}"'
                )
                continue
            if key.value in first:
                where = ".".join((*path, key.value))
                yield ConfigProblem(
                    name, line, where, f"this key stands on line {first[key.value]} already; remove one"
                )
            first.setdefault(key.value, line)
            yield from _node_faults(value, name, (*path, key.value), (*above, node))


def _lines(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Yield (path, line) of every key and list item below a node without faults."""
    if isinstance(node, SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    elif isinstance(node, MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    else:
        return
    for step, marked, value in children:
        yield (*path, step), marked.start_mark.line + 1
        yield from _lines(value, (*path, step))
