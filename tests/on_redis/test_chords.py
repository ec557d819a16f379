from __future__ import annotations

from ..asyncio_impl import test_chords
from .portable import ported

globals().update(ported(test_chords))
