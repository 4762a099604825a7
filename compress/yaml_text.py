"""The one reader of YAML: plain values, and the line of each. Nothing in a text is run, and no small text becomes a large value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from compress.errors import CompressError
from compress.files import read_text

Place = tuple[str, ...]
# Far above what a recipe or a model.yml with an alphabet of all Chinese characters holds.
MOST_CHARACTERS, MOST_VALUES, DEEPEST = 400_000, 20_000, 40
PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq")}


class Shallow(yaml.SafeLoader):
    """Stops, with a RecursionError, at the first value that is nested too deep: what is nested deeper takes ever longer to be read."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The node that the next event begins."""
        if self.depth > DEEPEST:
            raise RecursionError
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(path: Path, places: dict[Place, str] | None = None) -> Any:
    """The plain value of a YAML file.

    places: where the line of every value goes, `file, line n`. Raises CompressError, with the line, for what cannot be read, is no YAML,
    holds anything but mappings, lists, text, numbers, true, false and null, says a key twice, or is too large.
    """
    return parsed(read_text(path), str(path), path.name, {} if places is None else places)


def parsed(text: str, origin: str, name: str, places: dict[Place, str]) -> Any:
    """:func:`read_yaml` of a text. origin, name: the file as it is called where the text is no YAML, and where a value in it is wrong."""
    if len(text) > MOST_CHARACTERS:
        raise CompressError(f"{origin} has {len(text)} characters, more than the {MOST_CHARACTERS} that are read; it is no such file.")
    try:
        node = yaml.compose(text, Loader=Shallow)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise CompressError(f"{origin}{line}: not valid YAML: {fault(error)}.") from None
    except RecursionError:
        raise CompressError(f"{origin}: the values are nested more than {DEEPEST} levels deep; write fewer.") from None
    except (ValueError, OverflowError):  # a character by a number that no character has
        raise CompressError(f"{origin}: not valid YAML.") from None
    return None if node is None else construct(node, (), places, name)


def fault(error: yaml.YAMLError) -> str:
    """What PyYAML says, on one line."""
    return " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())


def construct(node: yaml.Node, path: Place, places: dict[Place, str], name: str) -> Any:
    """The plain value of a YAML node, noting the line of everything below it. Every repetition by `*` counts as written out."""
    line = f"{name}, line {node.start_mark.line + 1}"
    places[path] = line
    if len(places) > MOST_VALUES:
        raise CompressError(f"{line}: there are more than {MOST_VALUES} values, those repeated by `*` counted; write fewer.")
    if len(path) > DEEPEST:
        raise CompressError(f"{line}: the values are nested more than {DEEPEST} levels deep; write fewer.")
    if node.tag not in PLAIN:
        shown = short(node.value if isinstance(node, yaml.ScalarNode) else node.tag.removeprefix("tag:yaml.org,2002:"))
        raise CompressError(f"{line}: {shown} is neither text nor a number, true, false or null; put it in quotes where it is text.")
    if isinstance(node, yaml.MappingNode):
        return mapping(node, path, places, name)
    if isinstance(node, yaml.SequenceNode):
        return [construct(item, (*path, str(i)), places, name) for i, item in enumerate(node.value)]
    try:
        value = yaml.SafeLoader("").construct_object(node)
        if isinstance(value, str):
            value.encode()  # half of a surrogate pair is no text
        return value
    except (yaml.YAMLError, ValueError, OverflowError, IndexError, KeyError):
        raise CompressError(f"{line}: the value {short(node.value)} cannot be read; put it in quotes where it is text.") from None


def short(text: str) -> str:
    """Text in quotes on one line, its end left out where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def mapping(node: yaml.MappingNode, path: Place, places: dict[Place, str], name: str) -> dict[str, Any]:
    """The plain value of a mapping, its keys as they are written. Refuses a key said twice."""
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = f"{name}, line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise CompressError(f"{line}: a key must be a word.")
        key = str(key_node.value)
        if key in found:
            raise CompressError(f"{line}: the key {short(key)} is said twice; keep one.")
        found[key] = construct(value_node, (*path, key), places, name)
        places[(*path, key)] = line
    return found
