"""A YAML file as plain data, and the line of each of its keys. All YAML that a person may edit is read here.

Files come from strangers too, so size, depth and aliases are limited before anything is built of them: 258 bytes of
nested aliases are a billion nodes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from alignslm.config.problems import ConfigError, ConfigProblem, found

KeyPath: TypeAlias = tuple[str, ...]
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
CORE = "tag:yaml.org,2002:"
TEXT_TAG, MERGE_TAG = f"{CORE}str", f"{CORE}merge"
CORE_TAGS = {f"{CORE}{name}" for name in ("str", "int", "float", "bool", "null", "merge")}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>)( |$)", re.MULTILINE)  # git's

MAX_BYTES = 250_000  # two seconds to read; the longest file of this project has 13,000
MAX_DEPTH, MAX_NODES = 20, 200_000
MAX_KEY, MAX_TEXT, MAX_NUMBER = 100, 10_000, 40  # characters


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
        """Return the value at a path. Raises KeyError if there is none."""
        at: Plain = self.data
        for step in path:
            if isinstance(at, dict):
                at = at[step]
            elif isinstance(at, list) and step.isdecimal() and int(step) < len(at):
                at = at[int(step)]
            else:
                raise KeyError(step)
        return at


class _LimitedComposer(Composer):
    """Stops at a depth or a size, nodes counted as often as aliases repeat them."""

    depth = size = 0

    def compose_node(self, parent: Node | None, index: object) -> Node:
        """Return the next node. Raises ComposerError beyond a limit, and for a tag."""
        event = self.parser.peek_event()
        sizes: dict[int, int] = self.__dict__.setdefault("sizes", {})
        before, self.depth = self.size, self.depth + 1
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", event.start_mark)
        if not isinstance(event, AliasEvent) and event.tag not in {None, "!"}:
            raise ComposerError(None, None, f"the tag {event.tag} is not read; leave it out", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        self.size += sizes.get(id(node), 1) if isinstance(event, AliasEvent) else 1
        sizes.setdefault(id(node), self.size - before)
        if self.size > MAX_NODES:
            raise ComposerError(None, None, f"more than {MAX_NODES} values, aliases included", event.start_mark)
        return node


def read_document(path: Path) -> Document | list[ConfigProblem]:
    """Read a YAML 1.2 mapping, or say everything that keeps it from being one."""
    name = path.as_posix()
    if not path.is_file():
        return [ConfigProblem(name, None, "", "no such file")]
    if (size := path.stat().st_size) > MAX_BYTES:
        return [ConfigProblem(name, None, "", f"has {size} bytes, more than the {MAX_BYTES} that are read")]
    content = path.read_bytes()
    try:
        return parse_document(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [ConfigProblem(name, line, "", f"is not UTF-8 (byte {content[error.start]:#04x}); save it as UTF-8")]


def read_mapping(path: Path) -> dict[str, Plain]:
    """Return the content of a YAML mapping. Raises ConfigError."""
    document = read_document(path)
    if isinstance(document, list):
        raise ConfigError(document)
    return document.data


def limited_reader() -> YAML:
    """Return a reader of YAML 1.2 that raises YAMLError beyond a depth or a size."""
    reader = YAML(typ="safe", pure=True)
    reader.Composer = _LimitedComposer
    return reader


def parse_document(text: str, name: str) -> Document | list[ConfigProblem]:
    """Parse YAML 1.2 text: `1e-06` is a number and `on` is text, unlike in YAML 1.1 readers such as PyYAML."""
    if conflict := CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        return [ConfigProblem(name, line, "", f"git's conflict marker {conflict[1]}: settle the merge first")]
    reader = limited_reader()
    try:
        node = reader.compose(text)
        faults = [] if node is None else list(_node_faults(node, name, (), ()))
        data: Plain = None if faults or node is None else reader.constructor.construct_document(node)
    except YAMLError as error:
        return [_syntax_fault(error, name, text)]
    if faults:
        return faults
    if not isinstance(data, dict):
        return [ConfigProblem(name, 1, "", f"expected a mapping of keys to values, found {found(data)}")]
    return Document(name, data, {(): 1, **dict(_lines(node, ()))})


def _syntax_fault(error: YAMLError, name: str, text: str) -> ConfigProblem:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        line, opened = error.problem_mark.line + 1, error.context_mark
        since = f" (line {opened.line + 1})" if opened is not None and opened.line + 1 != line else ""
        why = ", ".join(part for part in (error.context and f"{error.context}{since}", error.problem) if part)
        return ConfigProblem(name, line, "", f"no valid YAML: {why}")
    line = text.count("\n", 0, getattr(error, "position", 0)) + 1
    return ConfigProblem(name, line, "", f"no valid YAML: {' '.join(str(error).split())}")


def _node_faults(node: Node, name: str, path: KeyPath, above: tuple[Node, ...]) -> Iterator[ConfigProblem]:
    """Yield repeated keys, keys that are not text, aliases that contain themselves, and unusable values."""
    if any(node is outer for outer in above):
        yield ConfigProblem(name, node.start_mark.line + 1, ".".join(path), "an alias is inside its own anchor")
        return
    if problem := _value_problem(node):
        yield ConfigProblem(name, node.start_mark.line + 1, ".".join(path), problem)
    elif isinstance(node, SequenceNode):
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
            if len(key.value) > MAX_KEY or CONTROL.search(key.value):
                message = f"a key has at most {MAX_KEY} printable characters, found {key.value[:MAX_KEY]!r}"
                yield ConfigProblem(name, line, ".".join(path), message)
                continue
            if key.value in first:
                where = ".".join((*path, key.value))
                yield ConfigProblem(name, line, where, f"this key is already on line {first[key.value]}; remove one")
            first.setdefault(key.value, line)
            yield from _node_faults(value, name, (*path, key.value), (*above, node))


def _value_problem(node: Node) -> str | None:
    """Return why a value cannot be used. A date becomes the text it was written as: YAML 1.2's core has none."""
    if not isinstance(node, ScalarNode):
        return None
    if node.tag not in CORE_TAGS:
        node.tag = TEXT_TAG
    size, is_number = len(node.value), node.tag in {f"{CORE}int", f"{CORE}float"}
    if is_number and size > MAX_NUMBER:
        return f"a number has at most {MAX_NUMBER} characters, found {size}"
    if is_number and node.value.endswith("_"):
        return f"{node.value!r} is not a number"
    if size > MAX_TEXT:
        return f"a text has at most {MAX_TEXT} characters, found {size}"
    control = CONTROL.search(node.value)
    return f"the text has the control character {control[0]!r}" if control else None


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
