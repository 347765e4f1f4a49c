"""Files of a release: in a folder, in a .zip, or alone; tables read line by line, with errors that name file and line.

An archive is never unpacked to disk; entries and their total size are limited, because releases come from outside.
"""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_ENTRIES = 20_000
MAX_BYTES = 20 * 2**30


class BadRelease(ValueError):
    """A release that cannot be read; the text names file, line and what was expected."""


# What an archive's member may raise; the last where it is encrypted, or packed in a way that zipfile does not read.
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Source:
    """One file: name without folders; in a zip if `archive` is set."""

    name: str
    path: str
    archive: zipfile.ZipFile | None = None

    def text(self) -> io.TextIOBase:
        """The file as UTF-8 text (a byte order mark is dropped)."""
        if self.archive is None:
            return Path(self.path).open(encoding="utf-8-sig", newline="")
        return io.TextIOWrapper(self.archive.open(self.path), encoding="utf-8-sig", newline="")

    def data(self) -> bytes:
        """The whole file. Raises BadRelease if it cannot be taken from its archive."""
        try:
            return Path(self.path).read_bytes() if self.archive is None else self.archive.read(self.path)
        except UNREADABLE as bad:
            raise BadRelease(f"{self.name}: cannot be taken from its archive") from bad


@contextmanager
def open_sources(paths: Sequence[Path]) -> Iterator[list[Source]]:
    """All files below some folders, in some archives, or the files themselves. Raises BadRelease for what is missing or too large."""
    with ExitStack() as stack:
        found: list[Source] = []
        for path in paths:
            if path.is_dir():
                found += [Source(each.name, str(each)) for each in sorted(path.rglob("*")) if each.is_file()]
            elif path.suffix.lower() == ".zip":
                archive = stack.enter_context(_archive(path))
                found += [Source(Path(each.filename).name, each.filename, archive) for each in archive.infolist() if not each.is_dir()]
            elif path.is_file():
                found.append(Source(path.name, str(path)))
            else:
                raise BadRelease(f"{path} does not exist")
        yield found


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as bad:
        raise BadRelease(f"{path.name} is not a zip archive") from bad
    rows = archive.infolist()
    if len(rows) > MAX_ENTRIES or sum(each.file_size for each in rows) > MAX_BYTES:
        archive.close()
        raise BadRelease(f"{path.name} holds more than {MAX_ENTRIES} files or {MAX_BYTES} bytes")
    return archive


def lines_of(source: Source) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, line ends kept. Raises BadRelease for what is not UTF-8, or cannot be taken from its archive."""
    number = 0
    try:
        with source.text() as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line
    except UnicodeDecodeError as bad:
        raise BadRelease(f"{source.name}: not UTF-8 text, behind line {number}") from bad
    except UNREADABLE as bad:
        raise BadRelease(f"{source.name}: cannot be taken from its archive behind line {number}") from bad


def header(source: Source, separator: str = "\t") -> list[str]:
    """The names in the first line. Raises BadRelease."""
    return next(lines_of(source), (1, ""))[1].rstrip("\r\n").split(separator)


def table(source: Source, columns: Sequence[str], separator: str = "\t") -> Iterator[list[str]]:
    """The rows of a tab-separated table whose header begins with `columns`. Raises BadRelease."""
    lines = lines_of(source)
    header = next(lines, (1, ""))[1].rstrip("\r\n").split(separator)
    if header[: len(columns)] != list(columns):
        raise BadRelease(f"{source.name}: the header should begin with {' '.join(columns)}")
    width = len(header)
    for number, line in lines:
        row = line.rstrip("\r\n").split(separator)
        if len(row) != width:
            if row == [""]:
                continue
            raise BadRelease(f"{source.name} line {number}: {len(row)} fields instead of {width}")
        yield row


def records(source: Source, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, as dicts. Raises BadRelease if a needed column is missing, or a row has other fields than the header."""
    reader = csv.DictReader((line for _, line in lines_of(source)), strict=True)
    try:
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise BadRelease(f"{source.name}: the column {missing[0]} is missing")
        for row in reader:
            beyond: Any = row.pop(None, ())  # what has no name in the header
            if None in row.values() or any(beyond):
                raise BadRelease(f"{source.name} line {reader.line_num}: other fields than the {len(reader.fieldnames or ())} of the header")
            yield row
    except csv.Error as bad:
        raise BadRelease(f"{source.name} line {reader.line_num}: {bad}") from bad


def find(sources: Sequence[Source], name: str) -> Source | None:
    """The file with this name (ignoring case), None if there is none."""
    return next((each for each in sources if each.name.lower() == name.lower()), None)
