"""Is what SQLite would silently drop from the end of a write-ahead log really only an uncommitted tail?

SQLite reads a log up to the first frame that is not sound and ignores the rest, committed or not. A crash
leaves one unfinished transaction there at most, for the next is not begun before the last one is synced. So
two ends of transactions beyond that frame, or a header that is not sound, mean that committed work is lost.
(Where only the very last transaction is damaged, nothing tells it from one that never was finished.)

Format: https://sqlite.org/fileformat2.html#walformat. Look at the file before SQLite opens it.
"""

import os
import struct
from pathlib import Path

_HEADER = struct.Struct(">IIIIIIII")  # magic, version, page size, checkpoint, salt 1, salt 2, checksum 1, 2
_FRAME = struct.Struct(">IIIIII")  # page, size of the database after a commit or 0, salt 1, salt 2, checksum 1, 2
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683  # says how the words of a checksum are read
_U32 = 0xFFFFFFFF


class WalFile:
    """The frames of the log at `path`, as they lie there now. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._sound_header = True
        self._commits: list[int] = []  # numbers, from 1, of the frames that end a transaction
        if not path.exists() or path.stat().st_size <= _HEADER.size:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read(descriptor)
        finally:
            os.close(descriptor)

    def fault(self, frames_read: int) -> str:
        """What is wrong if SQLite takes so many frames for sound; '' for nothing."""
        if not self._sound_header:
            return f"the header of {self._name} does not match its checksum"
        lost = sum(1 for number in self._commits if number > frames_read)
        if lost > 1:
            return f"{lost} transactions in {self._name} lie behind frame {frames_read + 1}, which is not sound"
        return ""

    def _read(self, descriptor: int) -> None:
        data = os.pread(descriptor, _HEADER.size, 0)
        magic, _, page_size, _, *salts, sum_1, sum_2 = _HEADER.unpack(data)
        self._sound_header = magic in (_MAGIC_LITTLE, _MAGIC_BIG) and (sum_1, sum_2) == _checksum(magic, data[:24])
        if not self._sound_header:
            return
        number, at = 1, _HEADER.size
        while len(head := os.pread(descriptor, _FRAME.size, at)) == _FRAME.size:
            _, size_after, salt_1, salt_2, _, _ = _FRAME.unpack(head)
            if size_after and [salt_1, salt_2] == salts:  # other salts: left over from before the log began anew
                self._commits.append(number)
            number, at = number + 1, at + _FRAME.size + page_size


def _checksum(magic: int, data: bytes) -> tuple[int, int]:
    words = struct.unpack(f"{'<' if magic == _MAGIC_LITTLE else '>'}{len(data) // 4}I", data)
    first = second = 0
    for x, y in zip(words[::2], words[1::2], strict=True):
        first = (first + x + second) & _U32
        second = (second + y + first) & _U32
    return first, second
