"""The floors of the house: imports go down, models know nothing above them, and no file above the tasks names a metric."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"compress": ROOT / "compress", "compress.models": ROOT / "models"}
# Where answers and ground truth are looked into: tasks, scorers, data, and the drawings of a report.
NAME_METRICS = ("tasks", "evaluation", "data", "report/plots.py", "report/shots.py")
METRICS = re.compile(r"(?<![a-z])(hmeans?|recall|polygons?|accuracy)(?![a-z])", re.IGNORECASE)


def files() -> dict[str, Path]:
    """Module -> its file."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


FILES = files()


def imported(source: str) -> Iterator[str]:
    """What a file imports, at whatever depth: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The file's module that an imported name is, or is taken from; None for those of other packages."""
    return name if name in FILES else name.rpartition(".")[0] if name.rpartition(".")[0] in FILES else None


GRAPH = {
    module: {found for name in imported(path.read_text()) if (found := module_of(name)) and found != module}
    for module, path in FILES.items()
}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lead from one to the next and from the last to the first; none where there is no circle."""
    done: set[str] = set()

    def walk(node: str, above: list[str]) -> list[str]:
        if node in above:
            return above[above.index(node) :]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := walk(other, [*above, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_a_circle_is_found_where_there_is_one():
    assert sorted(circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}})) == ["b", "d"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert list(imported("def f():\n    from a.b import c\nif TYPE_CHECKING:\n    import d")) == ["a.b.c", "d"]


def test_no_file_needs_a_file_that_needs_it():
    assert len(GRAPH) > 150
    assert circle(GRAPH) == []


def test_models_know_nothing_of_the_workbench():
    for module, path in FILES.items():
        if module.startswith("compress.models"):
            ours = {name for name in imported(path.read_text()) if name.split(".")[0] == "compress"}
            assert all(name.startswith("compress.models") for name in ours), module


def test_no_stage_needs_another():
    stages = {module for module in FILES if module.startswith("compress.stages.")} - {"compress.stages.stage"}
    assert len(stages) >= 6
    assert {module: GRAPH[module] & stages for module in stages if GRAPH[module] & stages} == {}


@pytest.mark.parametrize("module", [module for module in FILES if not module.startswith("compress.models")])
def test_no_metric_is_named_above_the_tasks(module):
    place = FILES[module].relative_to(PACKAGES["compress"]).as_posix()
    if not place.startswith(NAME_METRICS):
        assert [found[0] for found in METRICS.finditer(FILES[module].read_text())] == []
