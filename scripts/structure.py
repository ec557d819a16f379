"""Find circles of imports, and measure the structure of the package. Run by scripts/structure.

All of it is read from the source text; nothing is imported. An import counts wherever it stands:
at the top of a file, in a function, or below ``if TYPE_CHECKING``.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where circles are looked for.
FOLDERS = ("bridgetask", "benchmarks", "scripts")
#: The folder that is measured.
PACKAGE = "bridgetask"
#: A class with more methods, public and private, is a large one.
METHODS = 12
#: A file with more lines is a long one.
LINES = 350

#: How many of each there may be. Lower a limit as soon as there are fewer; raise one only with the
#: reason here: a broker more, Redis, has brought classes that implement long protocols, kombu's
#: names for what its own channel keeps to itself, and values of redis-py that have no type.
LIMITS = {
    "large classes": 20,
    "private names of other modules": 1,
    "private names of other libraries": 51,
    "uses of Any": 881,
    "long files": 0,
}

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """A file of Python.

    :ivar name: its dotted name, as it is imported.
    :ivar file: its path in the project.
    """

    name: str
    file: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.file.endswith("__init__.py") else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Finding:
    """Where something is, what it is, and how many of it are there."""

    place: str
    what: str
    count: int = 1


def read(project: Path, *folders: str) -> dict[str, Module]:
    """Return the modules below folders of a project, by their names."""
    modules = {}
    for path in sorted(path for folder in folders for path in (project / folder).rglob("*.py")):
        relative = path.relative_to(project)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, relative.as_posix(), text, ast.parse(text, str(path)))
    return modules


# Imports.


def imports(module: Module) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the module, and the name in it (or ``""``) of all that a module imports."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, _source(node, module.package), alias.name


def _source(node: ast.ImportFrom, package: str) -> str:
    """Return the full name of the module that something is imported from."""
    if not node.level:
        return node.module or ""
    outer = package.split(".")
    outer = outer[: len(outer) - node.level + 1]  # one dot is the package itself
    return ".".join([*outer, node.module] if node.module else outer)


def imported_modules(module: Module, modules: dict[str, Module]) -> dict[str, int]:
    """Return which of ``modules`` a module imports, and in which line it first does."""
    found: dict[str, int] = {}
    for line, source, name in imports(module):
        submodule = f"{source}.{name}"
        target = submodule if submodule in modules else source
        if target in modules and target != module.name:
            found[target] = min(line, found.get(target, line))
    return found


def circles(modules: dict[str, Module]) -> list[list[Finding]]:
    """Return the imports of each circle: of modules that all import each other, in some steps."""
    edges = _edges(modules)
    reached = {name: _reachable(name, edges) for name in edges}
    members = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in edges
        if name in reached[name]
    }
    return [
        [
            Finding(f"{modules[name].file}:{line}", f"imports {target}")
            for name in sorted(circle)
            for target, line in sorted(edges[name].items(), key=lambda edge: edge[1])
            if target in circle
        ]
        for circle in sorted(members, key=sorted)
    ]


def _edges(modules: dict[str, Module]) -> dict[str, dict[str, int]]:
    return {name: imported_modules(module, modules) for name, module in modules.items()}


def _reachable(start: str, edges: dict[str, dict[str, int]]) -> set[str]:
    """Return the modules that one imports in one or more steps."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges[waiting.pop()].keys() - found
        found |= new
        waiting += new
    return found


# Measures.


def large_classes(modules: dict[str, Module]) -> list[Finding]:
    """Find the classes with too many methods; a method's overloads, and setters, are one."""
    found = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                methods = {each.name for each in node.body if isinstance(each, _FUNCTIONS)}
                if len(methods) > METHODS:
                    what = f"class {node.name} has {len(methods)} methods"
                    found.append(Finding(f"{module.file}:{node.lineno}", what))
    return found


def long_files(modules: dict[str, Module]) -> list[Finding]:
    """Find the files with too many lines."""
    lines = {module.file: len(module.text.splitlines()) for module in modules.values()}
    return [Finding(file, f"{count} lines") for file, count in lines.items() if count > LINES]


def uses_of_any(modules: dict[str, Module]) -> list[Finding]:
    """Count each file's ``Any``, but for its import: in annotations, aliases and casts."""
    found = []
    for module in modules.values():
        count = sum(_is_any(node) for node in ast.walk(module.tree))
        if count:
            found.append(Finding(module.file, f"{count} times", count))
    return found


def _is_any(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "Any" in node.value:
        try:  # an annotation may be a string; prose is no expression
            quoted = ast.parse(node.value, mode="eval")
        except SyntaxError:
            return False
        return any(_is_any(each) for each in ast.walk(quoted))
    return isinstance(node, ast.Name) and node.id == "Any"


def private_names(modules: dict[str, Module]) -> tuple[list[Finding], list[Finding]]:
    """Find the uses of private names of the package's other modules, and those of libraries.

    A use is the import of such a name, or such an attribute of anything but ``self``, ``cls`` and
    ``super()``. Names that the module itself defines, in a class or beside one, are its own. The
    text does not tell whose other attributes are: a module's, if one that is imported, in some
    steps, defines a name like it.
    """
    edges = _edges(modules)
    defined = {name: set(_private_definitions(each.tree)) for name, each in modules.items()}
    ours: list[Finding] = []
    libraries: list[Finding] = []
    for name, module in modules.items():
        for line, source, imported in imports(module):
            if any(map(_is_private, (*source.split("."), imported))):
                of_package = source.partition(".")[0] == name.partition(".")[0]
                finding = Finding(f"{module.file}:{line}", f"{source} {imported}".rstrip())
                (ours if of_package else libraries).append(finding)
        known = set().union(*(defined[each] for each in _reachable(name, edges)))
        for node in _foreign_attributes(module.tree, defined[name]):
            finding = Finding(f"{module.file}:{node.lineno}", ast.unparse(node))
            (ours if node.attr in known else libraries).append(finding)
    return ours, libraries


def _foreign_attributes(tree: ast.Module, defined: set[str]) -> list[ast.Attribute]:
    """Return the private attributes that a module uses and does not define, by their lines."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and _is_private(node.attr)
        and node.attr not in defined
        and not _is_self(node.value)
    ]
    return sorted(found, key=lambda node: node.lineno)


def _is_private(name: str) -> bool:
    return name.strip("_") != "" and name.startswith("_") and not name.endswith("__")


def _is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _private_definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that functions, classes, assignments and ``__slots__`` define."""
    for node in ast.walk(tree):
        yield from filter(_is_private, _definitions(node))


def _definitions(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        if _is_self(node.value):
            yield node.attr
    elif isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets):
        for each in ast.walk(node.value):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def measures(modules: dict[str, Module]) -> dict[str, list[Finding]]:
    """Return all that :data:`LIMITS` limits."""
    package, libraries = private_names(modules)
    return {
        "large classes": large_classes(modules),
        "private names of other modules": package,
        "private names of other libraries": libraries,
        "uses of Any": uses_of_any(modules),
        "long files": long_files(modules),
    }


# The report.


def report_circles(project: Path) -> bool:
    """Print the circles; return whether there are none."""
    found = circles(read(project, *FOLDERS))
    print(f"circles of imports in {', '.join(FOLDERS)}: {len(found) or 'none'}")
    for number, circle in enumerate(found, 1):
        print(f"  circle {number}")
        _print(circle)
    return not found


def report_measures(project: Path, *, brief: bool) -> bool:
    """Print the measures; return whether all are within their limits."""
    kept = True
    for name, findings in measures(read(project, PACKAGE)).items():
        count, limit = sum(each.count for each in findings), LIMITS[name]
        kept &= count <= limit
        print(f"{name}: {count}, at most {limit}{'' if count <= limit else ': TOO MANY'}")
        if not brief or count > limit:
            _print(findings)
    return kept


def _print(findings: Iterable[Finding]) -> None:
    for each in findings:
        print(f"    {each.place}: {each.what}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "project",
        type=Path,
        nargs="?",
        default=Path(__file__).resolve().parents[1],
        help="a checkout of the project; this one unless it is given",
    )
    parser.add_argument("--brief", action="store_true", help="list only what exceeds its limit")
    given = parser.parse_args(arguments)
    none = report_circles(given.project)
    kept = report_measures(given.project, brief=given.brief)
    return 0 if none and kept else 1


if __name__ == "__main__":
    sys.exit(main())
