"""Change values inside YAML text and leave every other byte as it is: comments, order, spaces, quotes."""

import json
from io import StringIO
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from alignslm.config.document import KeyPath, Plain


class Entry(NamedTuple):
    """A key and its value in the parsed tree, with the mapping that contains them."""

    parent: MappingNode
    key: Node
    value: Node


def replace_value(text: str, path: KeyPath, value: Plain) -> str:
    """Return the text with the value at an existing path replaced; a comment behind it keeps its column."""
    entry = _find(text, path)
    start, end = entry.value.start_mark.index, _end(text, entry.value, entry.key)
    if start >= end:
        return f"{text[:end]} {flow(value)}{text[end:]}"
    if isinstance(entry.value, MappingNode) and not entry.value.flow_style:
        raise ValueError(f"{'.'.join(path)} is a block of keys; change its keys one by one")
    new = flow(value)
    return text[:start] + new + _keep_column(text[end:], grown=len(new) - (end - start))


def insert_key(text: str, path: KeyPath, value: Plain) -> str:
    """Return the text with a new key behind the last one of its parent, which must exist.

    A comment that follows the parent stays behind the new key.
    """
    parent = _mapping(text, path[:-1])
    if parent.flow_style or not parent.value:
        whole = {**_data(parent, text), path[-1]: value}
        return text[: parent.start_mark.index] + flow(whole) + text[_end(text, parent) :]
    column = parent.value[0][0].start_mark.column
    at = _line_end(text, _end(text, parent))
    head = text[:at] if text[:at].endswith("\n") else text[:at] + "\n"
    return head + _block({path[-1]: value}, column) + text[at:]


def delete_key(text: str, path: KeyPath) -> str:
    """Return the text without the lines of a key; a parent without other keys becomes `{}`, not null."""
    entry = _find(text, path)
    if entry.parent.flow_style or len(entry.parent.value) == 1:
        whole = {key: value for key, value in _data(entry.parent, text).items() if key != path[-1]}
        return text[: entry.parent.start_mark.index] + flow(whole) + text[_end(text, entry.parent) :]
    start = text.rfind("\n", 0, entry.key.start_mark.index) + 1
    return text[:start] + text[_line_end(text, _end(text, entry.value, entry.key)) :]


def flow(value: Plain) -> str:
    """Return a value on one line, quoted only where YAML needs it."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.width = True, 10**6
    stream = StringIO()
    writer.dump(value, stream)
    return stream.getvalue().removesuffix("\n").removesuffix("\n...")


def _block(value: Plain, column: int) -> str:
    writer = YAML()
    writer.width = 10**6
    stream = StringIO()
    writer.dump(json.loads(json.dumps(value)), stream)
    return "".join(f"{' ' * column}{line}\n" for line in stream.getvalue().splitlines())


def _tree(text: str) -> Node:
    return YAML(typ="safe", pure=True).compose(text)


def _find(text: str, path: KeyPath) -> Entry:
    parent = _mapping(text, path[:-1])
    for key, value in parent.value:
        if key.value == path[-1]:
            return Entry(parent, key, value)
    raise KeyError(".".join(path))


def _mapping(text: str, path: KeyPath) -> MappingNode:
    node: Node | None = _tree(text)
    for step in path:
        pairs = node.value if isinstance(node, MappingNode) else []
        node = next((value for key, value in pairs if key.value == step), None)
    if not isinstance(node, MappingNode):
        raise KeyError(".".join(path))
    return node


def _data(node: Node, text: str) -> dict[str, Plain]:
    return YAML(typ="safe", pure=True).load(text[node.start_mark.index : _end(text, node)])


def _end(text: str, node: Node, key: Node | None = None) -> int:
    """Return the end of a value's last character: a block's end mark is behind the comments after it.

    `key:` alone is null, marked wherever the next key begins; it ends at its colon.
    """
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        key, node = node.value[-1] if isinstance(node, MappingNode) else (None, node.value[-1])
    if key is not None and node.start_mark.index == node.end_mark.index:
        return text.index(":", key.end_mark.index) + 1
    return min(node.end_mark.index, len(text))


def _line_end(text: str, at: int) -> int:
    newline = text.find("\n", at)
    return len(text) if newline < 0 else newline + 1


def _keep_column(rest: str, *, grown: int) -> str:
    """Take as many spaces before a comment as the value has grown, or add them; two at least stay."""
    bare = rest.lstrip(" ")
    spaces = len(rest) - len(bare)
    return " " * max(spaces - grown, 2) + bare if spaces and bare.startswith("#") else rest
