"""What a run's figures depend on: the machine, and versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from kombu import Connection

__all__ = ["machine", "versions"]

_PACKAGES = (
    *("bridgetask", "celery", "kombu", "aio-pika", "aiormq", "redis", "twisted", "uvloop"),
    *("aio-celery", "acelery", "faststream-celery"),
)


def machine() -> dict[str, Any]:
    """Describe the machine, and how busy it is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(url: str, redis_url: str) -> dict[str, str]:
    """Return the versions of Python, packages and servers."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    with Connection(url) as connection:
        found["RabbitMQ"] = str(connection.default_channel.connection.server_properties["version"])
    if redis_url:
        from redis import Redis

        with Redis.from_url(redis_url) as server:
            found["Redis"] = str(server.info("server")["redis_version"])
    return found
