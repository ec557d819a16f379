"""The versions of Celery and kombu that templates are used with."""

from __future__ import annotations

import logging
from functools import cache

__all__ = ["TESTED_VERSIONS", "are_tested"]

logger: logging.Logger = logging.getLogger(__name__)

#: Minor versions of Celery and kombu with which ``tests/differential`` passes.
TESTED_VERSIONS: frozenset[tuple[str, str]] = frozenset(
    {
        ("5.5", "5.5"),
        ("5.6", "5.6"),
        ("5.6", "5.7"),
        ("5.7", "5.7"),
    }
)


@cache
def are_tested(celery_version: str, kombu_version: str) -> bool:
    """Tell whether these versions were tested together. If they were not, log that once."""
    tested = (_minor(celery_version), _minor(kombu_version)) in TESTED_VERSIONS
    if not tested:
        logger.info(
            "Celery %s with kombu %s was not tested: messages are made by Celery's own code"
            " throughout, which takes longer",
            celery_version,
            kombu_version,
        )
    return tested


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
