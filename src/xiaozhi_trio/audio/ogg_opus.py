"""Opus packets as they are into Ogg pages, and out of them again (RFC 3533, RFC 7845).

Nothing is decoded or encoded. PyOgg 0.6.14a1 has no writer for Opus, so this uses
its raw bindings of libogg. Its Python wrappers of `ogg_stream_pagein` and
`ogg_stream_packetout` name variables that do not exist, so the C functions are called;
`ogg_sync_buffer`, `ogg_sync_pageout` and `opus_packet_get_nb_samples` are declared
with types that they do not have, so they are declared here.

Positions are samples at 48 kHz, whatever the packets were encoded at.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from typing import TYPE_CHECKING, Any, Final

from xiaozhi_trio.audio import libopus
from xiaozhi_trio.audio.opus import OpusError

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE: Final = 48_000
"""Positions a second."""
PRE_SKIP: Final = 312
"""Samples a player leaves out at the start: libopus' delay, which both sides' encoders have."""

_PAGE_SAMPLES: Final = RATE
"""RFC 7845, 6: a page of more than a second costs whoever seeks or joins in."""
_SILENT_SAMPLES: Final = RATE * 120 // 1000
"""The longest packet there is."""
_HEADERS: Final = 2
_VENDOR: Final = b"xiaozhi-trio"


class OggError(ValueError):
    """The bytes are no Ogg Opus stream of one device, or pages of it are missing."""


def packet_samples(packet: bytes) -> int:
    """How long a packet plays. Raises `OpusError` for what is no Opus packet."""
    count = _function(
        libopus.bindings().libopus,
        "opus_packet_get_nb_samples",
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_int32,
    )
    # libopus 1.3 reads the first byte also of an empty packet.
    samples: int = count(packet, len(packet), RATE) if packet else 0
    if samples <= 0:
        raise OpusError(f"{len(packet)} bytes came that are no Opus packet")
    return samples


def _function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)((name, library))


def _ogg() -> Any:
    # libopusfile, which `bindings` asks for, does not come without libogg.
    libopus.bindings()
    from pyogg import ogg

    return ogg


class OggOpusWriter:
    """One stream of packets as pages, to be written where they are wanted."""

    def __init__(self, *, serial: int, input_rate: int) -> None:
        """`serial` tells streams apart; `input_rate` (Hz) is told to players, not used."""
        self._ogg = _ogg()
        self._stream = self._ogg.ogg_stream_state()
        self._ogg.libogg.ogg_stream_init(ctypes.byref(self._stream), serial)
        weakref.finalize(self, self._ogg.libogg.ogg_stream_clear, ctypes.byref(self._stream))
        self.position = 0
        """End of the last packet."""
        self.packets = 0
        """Added so far, silence included."""
        self._paged = 0
        self._pages = bytearray()
        self._put(_head(input_rate), first=True)
        self._flush()
        self._put(_tags())
        self._flush()

    def add(self, packet: bytes) -> int:
        """Append one packet and give its number, from 0. Raises `OpusError` for no packet."""
        self.position += packet_samples(packet)
        self._put(packet)
        self.packets += 1
        if self.position - self._paged >= _PAGE_SAMPLES:
            self._flush()
        return self.packets - 1

    def pad(self, position: int, *, like: bytes) -> None:
        """Append lost packets up to `position` or less than one before it (RFC 7845, 4.1).

        A decoder conceals them, which is silence after some 100 ms. `like` is a packet
        beside the gap: a change of its mode would cost a click.
        """
        silent = _lost_packet(like)
        samples = packet_samples(silent)
        while self.position + samples <= position:
            self.add(silent)

    def take_pages(self, *, everything: bool = False) -> bytes:
        """The pages that are complete; with `everything` also what would wait for a page's end."""
        if everything:
            self._flush()
        pages = bytes(self._pages)
        self._pages.clear()
        return pages

    def end(self) -> bytes:
        """The last pages. Nothing may be added after them."""
        # Only a packet can carry the mark. This one ends where it begins, so it is trimmed away.
        self._put(_lost_packet(b"\x08"), last=True)
        return self.take_pages(everything=True)

    def _put(self, data: bytes, *, first: bool = False, last: bool = False) -> None:
        buffer = (ctypes.c_ubyte * len(data)).from_buffer_copy(data)
        packet = self._ogg.ogg_packet()
        packet.packet = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ubyte))
        packet.bytes = len(data)
        packet.b_o_s = int(first)
        packet.e_o_s = int(last)
        packet.granulepos = self.position
        # libogg copies the bytes.
        if self._ogg.libogg.ogg_stream_packetin(ctypes.byref(self._stream), ctypes.byref(packet)):
            raise MemoryError("libogg has no memory for a packet")

    def _flush(self) -> None:
        page = self._ogg.ogg_page()
        while self._ogg.libogg.ogg_stream_flush(ctypes.byref(self._stream), ctypes.byref(page)):
            self._pages += _page_bytes(page)
        self._paged = self.position


def _page_bytes(page: Any) -> bytes:
    return ctypes.string_at(page.header, page.header_len) + ctypes.string_at(
        page.body, page.body_len
    )


def _head(input_rate: int) -> bytes:
    """RFC 7845, 5.1: version 1, one channel, no gain, mapping family 0."""
    return struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, PRE_SKIP, input_rate, 0, 0)


def _tags() -> bytes:
    """RFC 7845, 5.2: who wrote it and no comments."""
    return struct.pack("<8sI", b"OpusTags", len(_VENDOR)) + _VENDOR + struct.pack("<I", 0)


def _lost_packet(like: bytes) -> bytes:
    """A packet of empty frames in the mode of another, as long as packets can be.

    Code 3 of RFC 6716, 3.2.5: the first byte without its code, then the number of frames.
    """
    single = bytes([like[0] & 0xFC])
    return bytes([single[0] | 3, _SILENT_SAMPLES // packet_samples(single)])


def read_packets(data: bytes) -> list[bytes]:
    """All packets of a stream in order, lost ones included.

    A file that was cut off gives what came before. Raises `OggError`.
    """
    reader = _OggReader(data)
    packets = list(reader.packets())
    if not packets or not packets[0].startswith(b"OpusHead"):
        raise OggError("the bytes do not begin with an Ogg page of an Opus stream")
    return packets[_HEADERS:]


class _OggReader:
    def __init__(self, data: bytes) -> None:
        self._ogg = _ogg()
        self._libogg = self._ogg.libogg
        self._sync = self._ogg.ogg_sync_state()
        self._stream = self._ogg.ogg_stream_state()
        self._libogg.ogg_sync_init(ctypes.byref(self._sync))
        weakref.finalize(self, self._libogg.ogg_sync_clear, ctypes.byref(self._sync))
        weakref.finalize(self, self._libogg.ogg_stream_clear, ctypes.byref(self._stream))
        sync = ctypes.POINTER(self._ogg.ogg_sync_state)
        room = _function(self._libogg, "ogg_sync_buffer", ctypes.c_void_p, sync, ctypes.c_long)
        self._next_page = _function(
            self._libogg,
            "ogg_sync_pageout",
            ctypes.c_int,
            sync,
            ctypes.POINTER(self._ogg.ogg_page),
        )
        # Of no bytes it gives no address either.
        place = room(ctypes.byref(self._sync), len(data) + 1)
        if place is None:
            raise MemoryError(f"libogg has no memory for a file of {len(data)} bytes")
        ctypes.memmove(place, data, len(data))
        self._libogg.ogg_sync_wrote(ctypes.byref(self._sync), len(data))

    def packets(self) -> Iterator[bytes]:
        page = self._ogg.ogg_page()
        packet = self._ogg.ogg_packet()
        begun = False
        while (found := self._next_page(*self._of(self._sync, page))) != 0:
            if found < 0:
                raise OggError("bytes between two pages belong to neither")
            if not begun:
                serial = self._libogg.ogg_page_serialno(ctypes.byref(page))
                self._libogg.ogg_stream_init(ctypes.byref(self._stream), serial)
                begun = True
            if self._libogg.ogg_stream_pagein(*self._of(self._stream, page)):
                raise OggError("a page belongs to another stream")
            while (got := self._libogg.ogg_stream_packetout(*self._of(self._stream, packet))) != 0:
                if got < 0:
                    raise OggError("a page is missing")
                yield ctypes.string_at(packet.packet, packet.bytes)

    @staticmethod
    def _of(state: Any, filled: Any) -> tuple[Any, Any]:
        return ctypes.byref(state), ctypes.byref(filled)
