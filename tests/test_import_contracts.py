"""The import contracts cover a file from the day it is made, in whatever folder.

Each test adds files to a copy of the package. What the contracts make of the package itself,
scripts/check tells.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="of the dependency group check")

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "bridgetask"
#: Every folder of the package, as it is imported.
FOLDERS = sorted(
    ".".join(path.parent.relative_to(PROJECT).parts) for path in PACKAGE.rglob("__init__.py")
)
#: Each library, and the folders that may import it.
HOMES = {
    **dict.fromkeys(("aio_pika", "aiormq", "amqp", "pamqp", "yarl"), ("transports.amqp",)),
    **dict.fromkeys(("celery", "kombu"), ("transports", "wire")),
    "redis": ("transports.redis",),
    "twisted": ("twisted_compat",),
}


class Copy:
    """A copy of the package and of the contracts, to add to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, folder / "bridgetask", ignore=ignored)
        shutil.copy(PROJECT / "pyproject.toml", folder)
        shutil.copytree(PROJECT / "scripts", folder / "scripts", ignore=ignored)

    def add(self, name: str, text: str) -> None:
        """Write a module; its folder may be a new one."""
        path = self._folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)

    def lint(self, *config: str) -> str:
        """Return what lint-imports says, each of its paragraphs on one line."""
        ended = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", *config],
            cwd=self._folder,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = ended.stdout + ended.stderr
        assert (ended.returncode != 0) == ("BROKEN" in said), said
        return re.sub(r"\s*\n\s*(?=\S)", " ", said)


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def refused(said: str, importer: str) -> set[str]:
    """Return what lint-imports does not let a module import."""
    lines = re.findall(r"(\S+) -> (\S+) \(l\.", said)
    return {imported for module, imported in lines if module == importer}


def for_type_checking(*modules: str) -> str:
    lines = "".join(f"    import {each}\n" for each in modules)
    return f"from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n{lines}"


def at_home(folder: str, library: str) -> bool:
    return f"{folder}.".startswith(tuple(f"bridgetask.{home}." for home in HOMES[library]))


def test_a_new_file_in_any_folder_may_import_only_the_libraries_of_that_folder(
    copied: Copy,
) -> None:
    for folder in FOLDERS:
        foreign = [library for library in HOMES if not at_home(folder, library)]
        copied.add(f"{folder}.added", "".join(f"import {each}\n" for each in foreign))
        assert foreign
    said = copied.lint() + copied.lint("scripts/celery_imports.toml")
    for folder in FOLDERS:
        foreign = {library for library in HOMES if not at_home(folder, library)}
        assert refused(said, f"{folder}.added") == foreign


def test_a_new_file_in_any_folder_may_import_the_libraries_of_that_folder(copied: Copy) -> None:
    for folder in FOLDERS:
        own = [library for library in HOMES if at_home(folder, library)]
        copied.add(f"{folder}.added", "".join(f"import {each}\n" for each in own))
    said = copied.lint() + copied.lint("scripts/celery_imports.toml")
    assert not [folder for folder in FOLDERS if refused(said, f"{folder}.added")]


def test_core_may_not_even_name_a_library_for_type_checking(copied: Copy) -> None:
    libraries = {"django", "uvloop", "vine", *HOMES}
    copied.add("bridgetask.core.added", for_type_checking(*libraries))
    said = copied.lint()
    assert "core names no library BROKEN" in said
    assert refused(said, "bridgetask.core.added") == libraries


def test_all_that_takes_an_app_may_name_celery_for_type_checking(copied: Copy) -> None:
    copied.add("bridgetask.asyncio_impl.added", for_type_checking("celery"))
    assert ".added" not in copied.lint() + copied.lint("scripts/celery_imports.toml")


def test_a_new_file_may_not_import_upwards_even_for_type_checking(copied: Copy) -> None:
    upwards = {
        "wire": "core",
        "core": "transports.memory",
        "transports.memory": "asyncio_impl",
        "asyncio_impl": "twisted_compat",
        "twisted_compat": "testing",
        "transports.amqp": "transports.redis",
        "transports.redis": "transports.plugs",
    }
    for lower, upper in upwards.items():
        copied.add(f"bridgetask.{lower}.added", for_type_checking(f"bridgetask.{upper}"))
    said = copied.lint()
    for lower, upper in upwards.items():
        assert refused(said, f"bridgetask.{lower}.added") == {f"bridgetask.{upper}"}


@pytest.mark.parametrize(
    ("module", "unlisted", "contract"),
    [
        ("bridgetask.added", "bridgetask.added", "Arrows point down only"),
        ("bridgetask.folder.added", "bridgetask.folder", "Arrows point down only"),
        (
            "bridgetask.transports.pigeon.added",
            "bridgetask.transports.pigeon",
            "Carriers know nothing of each other",
        ),
    ],
)
def test_what_is_new_beside_the_folders_has_to_be_given_its_place(
    copied: Copy, module: str, unlisted: str, contract: str
) -> None:
    copied.add(module, "")
    said = copied.lint()
    assert f"{contract} BROKEN" in said
    assert f"not listed as layers: - {unlisted} (" in said
