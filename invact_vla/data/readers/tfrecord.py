"""TFRecord files of `tf.train.Example` messages, read without TensorFlow.

Framing: uint64 length, masked CRC-32C of those 8 bytes, the message, masked CRC-32C of it (little
endian; tensorflow/core/lib/io/record_writer.cc). Of a message only the features that are wanted are
read from the file: pictures are jumped over.
Message: `Example {1: Features {1: repeated {1: key, 2: Feature}}}` in protobuf's wire format.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from invact_vla.core.errors import UserError
from invact_vla.data.source_files import check_file

HEADER, FOOTER = 12, 4
MAX_RECORDS = 1_000_000  # of a file
MAX_FIELDS = 10_000  # of a message: a step has about 20 features
BLOCK = 1 << 20  # bytes read at once
PEEK = 256  # bytes of a feature that hold its key
DELIMITED = 2  # wire type


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), masked as TFRecord has it."""
    return _masked(_crc32c().value(data))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c() -> Any:
    try:
        import google_crc32c
    except ImportError as error:
        raise UserError(
            "RLDS needs google-crc32c: pip install 'invact-vla[rlds]' (it needs no TensorFlow)"
        ) from error
    return google_crc32c


@dataclass(frozen=True)
class Record:
    """Where a message is: its file, first byte, and number of bytes."""

    path: Path
    start: int
    length: int


def list_records(path: Path) -> list[Record]:
    """The messages of a file, by their framing alone. Raises UserError for a damaged file."""
    size = check_file(path).stat().st_size
    records, place = [], 0
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            header = file.read(HEADER)
            length, crc = struct.unpack("<QI", header) if len(header) == HEADER else (0, -1)
            if masked_crc32c(header[:8]) != crc:
                raise UserError(f"{path} is no TFRecord file or is damaged at byte {place}")
            end = place + HEADER + length + FOOTER
            if end > size:
                raise UserError(
                    f"{path} ends within a record ({size} of {end} bytes): fetch it again"
                )
            if len(records) == MAX_RECORDS:
                raise UserError(f"{path} holds more than {MAX_RECORDS} records: it is forged")
            records.append(Record(path, place + HEADER, length))
            place = end
    return records


def check_record(record: Record) -> None:
    """UserError where a message is not what its checksum says, bit for bit."""
    crc, left = 0, record.length
    with open(record.path, "rb") as file:
        file.seek(record.start)
        while left and (block := file.read(min(left, BLOCK))):
            crc, left = _crc32c().extend(crc, block), left - len(block)
        footer = file.read(FOOTER)
    if left or struct.pack("<I", _masked(crc)) != footer:
        raise UserError(
            f"{record.path} is damaged within the record at byte {record.start}: its checksum does "
            "not agree; fetch it again"
        )


def read_features(record: Record, wanted: Callable[[str], bool], limit: int) -> bytes:
    """A serialized Example of only those features whose key is wanted. UserError for a damaged message,
    and for more than `limit` bytes of these."""
    path, start, end = record.path, record.start, record.start + record.length
    try:
        with open(path, "rb") as file:
            maps = _fields(file, start, end)
            entries = (place for features in maps for place in _fields(file, *features))
            places = [place for place in entries if wanted(_key(file, *place))]
            if sum(last - first for first, last in places) > limit:
                raise UserError(
                    f"{path}: an episode of more than {limit >> 20} MiB at byte {start}"
                )
            parts = []
            for first, last in places:  # each as it is in the file, a field of the map again
                file.seek(first)
                parts.append(b"\x0a" + varint(last - first) + file.read(last - first))
    except (IndexError, ValueError) as error:
        raise UserError(f"{path}: no tf.train.Example at byte {start}") from error
    kept = b"".join(parts)
    return b"\x0a" + varint(len(kept)) + kept


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(first byte, end) of each field number 1 of a message; all fields must be length-delimited."""
    for _ in range(MAX_FIELDS + 1):
        if start >= end:
            return
        file.seek(start)
        head = file.read(min(20, end - start))
        tag, used = parse_varint(head)
        length, more = parse_varint(head[used:])
        start += used + more
        if tag & 7 != DELIMITED or start + length > end:
            raise ValueError("not a message of length-delimited fields")
        if tag >> 3 == 1:
            yield start, start + length
        start += length
    raise ValueError(f"more than {MAX_FIELDS} fields")


def _key(file: BinaryIO, first: int, last: int) -> str:
    """The key at the beginning of an entry of the feature map."""
    file.seek(first)
    head = file.read(min(PEEK, last - first))
    if head[0] != 0x0A:
        raise ValueError("an entry does not begin with its key")
    length, used = parse_varint(head[1:])
    key = head[1 + used : 1 + used + length]
    if len(key) < length:
        raise ValueError("a key is too long")
    return key.decode()


def parse_varint(data: bytes) -> tuple[int, int]:
    """(value, bytes used) of a base-128 number. Raises IndexError if it does not end."""
    value = used = 0
    while True:
        byte = data[used]
        value |= (byte & 0x7F) << (7 * used)
        used += 1
        if byte < 0x80:
            return value, used


def varint(value: int) -> bytes:
    """A number >= 0 in base 128."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
