"""Decompression with a limit, since a megabyte can be made to unpack to more than a gigabyte."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import kombu.compression
from kombu.compression import get_decoder

__all__ = ["DEFAULT_LIMIT", "TooLarge", "decompress"]

#: Bytes that a result may have, before and after decompression, by default.
DEFAULT_LIMIT = 256 * 1024 * 1024


class TooLarge(Exception):
    """A body is larger than the limit allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"it has more than {limit} bytes (max_result_size)")


def decompress(body: bytes, method: str, limit: int) -> bytes:
    """Undo a compression that is registered with ``kombu.compression``.

    A decoder that the program has registered there has no limit; the size is checked afterwards.

    :param method: the name or the content type of the compression.
    :param limit: how many bytes the decompressed body may have.
    :raises TooLarge: it has more.
    :raises Exception: the method is unknown, or the body is broken.
    """
    decoder = get_decoder(method)
    bounded = _BOUNDED.get(decoder)
    unpacked: bytes = bounded(body, limit + 1) if bounded is not None else decoder(body)
    if len(unpacked) > limit:
        raise TooLarge(limit)
    return unpacked


def _bounded(decompressor: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    def bounded(body: bytes, size: int) -> bytes:
        stream = decompressor()
        unpacked: bytes = stream.decompress(body, size)
        if not stream.eof and len(unpacked) < size:
            raise EOFError("the compressed body is cut off")
        return unpacked

    return bounded


def _brotli(module: Any) -> Callable[[bytes, int], bytes]:
    def bounded(body: bytes, size: int) -> bytes:
        stream = module.Decompressor()
        # Versions before 1.2 have no limit, and take no such argument.
        unpacked: bytes = stream.process(body, output_buffer_limit=size)
        if not stream.is_finished() and len(unpacked) < size:
            raise EOFError("the compressed body is cut off")
        return unpacked

    return bounded


def _zstandard(module: Any) -> Callable[[bytes, int], bytes]:
    def bounded(body: bytes, size: int) -> bytes:
        if module.frame_content_size(body) >= size:
            raise TooLarge(size - 1)
        unpacked: bytes = module.ZstdDecompressor().decompress(body, max_output_size=size)
        return unpacked

    return bounded


#: Decoders that kombu registers -> functions that do the same up to a number of bytes.
_BOUNDED: dict[Any, Callable[[bytes, int], bytes]] = {
    zlib.decompress: _bounded(zlib.decompressobj),
    bz2.decompress: _bounded(bz2.BZ2Decompressor),
    lzma.decompress: _bounded(lzma.LZMADecompressor),
}
for _name in ("brotli", "brotlicffi", "backports.zstd", "compression.zstd"):
    try:
        _module: Any = import_module(_name)
    except ImportError:
        continue
    if _name.endswith("zstd"):
        _BOUNDED[_module.decompress] = _bounded(_module.ZstdDecompressor)
    else:
        _BOUNDED[_module.decompress] = _brotli(_module)
_of_kombu: Any = getattr(kombu.compression, "zstd_decompress", None)  # up to 5.5
if _of_kombu is not None:
    _BOUNDED[_of_kombu] = _zstandard(import_module("zstandard"))
