"""scripts/structure finds circles and counts right, in small trees that are made for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scripts import structure
from scripts.structure import Finding, Module

PROJECT = Path(__file__).resolve().parents[1]

ReadTree = Callable[..., dict[str, Module]]


@pytest.fixture
def tree(tmp_path: Path) -> ReadTree:
    """Return a function that writes files of a package, and reads them: ``tree(path=text)``."""

    def write_and_read(files: dict[str, str]) -> dict[str, Module]:
        for name, text in files.items():
            path = tmp_path / "package" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return structure.read(tmp_path, "package")

    return write_and_read


def found(findings: Sequence[Finding]) -> list[str]:
    return [f"{each.place.removeprefix('package/')}: {each.what}" for each in findings]


# Circles.


def test_a_circle_is_found_with_its_lines(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": "from . import b\n",
            "b.py": "\nfrom .c import x\n",
            "c.py": "import os, package.a\n",
        }
    )
    [circle] = structure.circles(modules)
    assert found(circle) == [
        "a.py:1: imports package.b",
        "b.py:2: imports package.c",
        "c.py:1: imports package.a",
    ]


def test_imports_in_one_direction_are_no_circle(tree: ReadTree) -> None:
    modules = tree(
        {
            "__init__.py": "from .a import x\n",
            "a.py": "from .b import y\n",
            "b.py": "from os import path\n",
        }
    )
    assert structure.circles(modules) == []
    assert structure.imported_modules(modules["package"], modules) == {"package.a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A\n",
        "def late():\n    from .a import A\n",
        "class Late:\n    async def late(self):\n        import package.a\n",
        "try:\n    from package import a\nexcept ImportError:\n    pass\n",
        "from .a import *\n",
    ],
    ids=["type checking", "in a function", "in a method", "tried", "star"],
)
def test_an_import_counts_wherever_it_stands(tree: ReadTree, text: str) -> None:
    modules = tree({"a.py": "from .b import B\n", "b.py": text})
    assert len(structure.circles(modules)) == 1


def test_what_is_imported_from_a_package_is_its_submodule_or_the_package(tree: ReadTree) -> None:
    modules = tree(
        {
            "__init__.py": "",
            "inner/__init__.py": "from .one import X\n",
            "inner/one.py": "from . import two\n",
            "inner/two.py": "from .. import outer\nfrom ..inner import X\n",
            "outer.py": "from .inner import two, one\nimport package.inner.one.X\n",
        }
    )
    targets = {
        name: set(structure.imported_modules(each, modules)) for name, each in modules.items()
    }
    assert targets["package.inner"] == {"package.inner.one"}
    assert targets["package.inner.one"] == {"package.inner.two"}
    assert targets["package.inner.two"] == {"package.outer", "package.inner"}
    assert targets["package.outer"] == {"package.inner.two", "package.inner.one"}


def test_circles_apart_from_each_other_are_told_apart(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": "from . import b, c\n",
            "b.py": "from . import a\n",
            "c.py": "from . import d\n",
            "d.py": "from . import c\n",
        }
    )
    assert [len(each) for each in structure.circles(modules)] == [2, 2]


# Measures.


def test_methods_are_counted_public_and_private_once_each(tree: ReadTree) -> None:
    methods = "".join(f"    def {'_' * (n % 2)}m{n}(self): ...\n" for n in range(11))
    last = "    async def n(self): ...\n    @property\n    def p(self): ...\n"
    again = "    @p.setter\n    def p(self, value): ...\n"
    few = tree({"a.py": f"class Few:\n{methods}{last.partition('    @')[0]}    x = 1\n"})
    assert structure.large_classes(few) == []
    many = tree({"a.py": f"class Many:\n{methods}{last}{again}"})
    assert found(structure.large_classes(many)) == ["a.py:1: class Many has 13 methods"]


def test_a_private_use_is_counted(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": "class A:\n    def __init__(self): self._x = 1\n    def _y(self): ...\n",
            "b.py": "from .a import A\n\ndef f(a):\n    a._y()\n    return A()._x\n",
            "c.py": "from .b import f as g\nfrom .b import _hidden\n\ng._x = 1\n",
        }
    )
    package, libraries = structure.private_names(modules)
    assert found(package) == [
        "b.py:4: a._y",
        "b.py:5: A()._x",
        "c.py:2: package.b _hidden",
        "c.py:4: g._x",
    ]
    assert libraries == []


def test_what_a_module_or_a_class_has_of_its_own_is_no_private_use(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": "class A:\n    _kept: int = 1\n    def _do(self): ...\n",
            "b.py": (
                "from .a import A\nfrom .a import __doc__ as _about\n_TABLE = {}\n"
                "class B(A):\n"
                "    __slots__ = ('_slot',)\n"
                "    def __init__(self, other):\n"
                "        self._kept, other._slot = 2, other.__class__\n"
                "        super()._do()\n"
                "    @classmethod\n"
                "    def make(cls): return cls._do\n"
                "def same(b): return b._slot, b._kept\n"
            ),
        }
    )
    assert structure.private_names(modules) == ([], [])


def test_private_names_of_libraries_are_counted_apart(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": "from celery import _state\nfrom celery._state import _tls\n\n_state._set\n",
            # Defines a name like one that a.py uses, but is nothing that a.py has to do with.
            "b.py": "def _set(): ...\n",
        }
    )
    package, libraries = structure.private_names(modules)
    assert package == []
    assert found(libraries) == [
        "a.py:1: celery _state",
        "a.py:2: celery._state _tls",
        "a.py:4: _state._set",
    ]


def test_any_is_counted_in_strings_too_and_not_in_prose(tree: ReadTree) -> None:
    modules = tree(
        {
            "a.py": (
                '"""Any of them."""\nfrom typing import Any, cast\n'
                "X: 'dict[str, Any]' = cast('Any', 1)\n"
                "def f(a: Any, *b: list[Any]) -> Any: ...\n"
            ),
            "b.py": "from typing import Any\n",
        }
    )
    [finding] = structure.uses_of_any(modules)
    assert (finding.place, finding.count) == ("package/a.py", 5)


def test_long_files_are_found(tree: ReadTree) -> None:
    modules = tree({"a.py": "x = 1\n" * 350, "b.py": "x = 1\n" * 351})
    assert found(structure.long_files(modules)) == ["b.py: 351 lines"]


# The command.


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROJECT / "scripts" / "structure.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def write_project(folder: Path, **files: str) -> Path:
    for each in structure.FOLDERS:
        (folder / each).mkdir()
    for name, text in files.items():
        (folder / name.replace("__", "/")).with_suffix(".py").write_text(text)
    return folder


def test_the_command_fails_at_a_circle_in_any_folder(tmp_path: Path) -> None:
    one = write_project(tmp_path, scripts__a="import scripts.b\n", scripts__b="import scripts.a\n")
    ended = run(one)
    assert ended.returncode == 1
    assert "bridgetask, benchmarks, scripts: 1\n" in ended.stdout
    assert "scripts/a.py:1: imports scripts.b" in ended.stdout
    (one / "scripts" / "b.py").write_text("")
    ended = run(one)
    assert ended.returncode == 0
    assert "bridgetask, benchmarks, scripts: none\n" in ended.stdout


def test_the_command_fails_above_a_limit_and_says_where(tmp_path: Path) -> None:
    limit = structure.LIMITS["long files"]
    project = write_project(tmp_path, **{f"bridgetask__a{n}": "\n" * 400 for n in range(limit)})
    assert run(project, "--brief").returncode == 0
    (project / "bridgetask" / "last.py").write_text("\n" * 400)
    ended = run(project, "--brief")
    assert ended.returncode == 1
    assert f"long files: {limit + 1}, at most {limit}: TOO MANY" in ended.stdout
    assert "bridgetask/last.py: 400 lines" in ended.stdout


@pytest.mark.parametrize("folder", ["benchmarks", "scripts"])
def test_there_is_no_circle_beside_the_package(folder: str) -> None:
    assert structure.circles(structure.read(PROJECT, folder)) == []
