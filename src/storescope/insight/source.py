"""The OTLP/JSON objects and spans of files; what cannot be read becomes a note."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from storescope.insight import otlp, reader
from storescope.insight.model import InsightError, Note, Span

TRACE_FILES: Final = "traces-*.jsonl"
METRIC_FILES: Final = "metrics-*.jsonl"
#: Notes kept of what was skipped; a file of another kind would give one per line.
MAX_NOTES: Final = 20

_HOW_TO_RECORD: Final = (
    "Record a program first: opentelemetry-instrument python app.py (or see: storescope demo)"
)


class Place(NamedTuple):
    """Where an OTLP object stands: the number of its file in the source, and the line where it begins."""

    file: int
    line: int


class Source:
    """OTLP/JSON files, and notes on what could not be read of them."""

    def __init__(self, files: Iterable[Path], patterns: Sequence[str] = (TRACE_FILES,)) -> None:
        """`patterns` are the names of the files that hold what is looked for."""
        self.files = tuple(files)
        self.notes: list[Note] = []
        self.notes_left_off = 0
        self._kind = " or ".join(patterns)

    @classmethod
    def at(cls, path: Path, patterns: Sequence[str] = (TRACE_FILES,)) -> Source:
        """Find files at `path`: a file of any name, or those of a folder that fit one of `patterns`, in their order.

        Raises InsightError where there is none.
        """
        try:
            if path.is_dir():
                return cls._in_folder(path, patterns)
            if path.is_file():
                return cls([path], patterns)
            if path.exists():
                raise InsightError(
                    f"{path} is neither a file nor a folder.\n{cls((), patterns)._what_to_give()}"
                )
        except OSError as error:
            raise InsightError(f"{path} cannot be read: {error.strerror}.") from error
        raise InsightError(f"{path} does not exist.\n{_HOW_TO_RECORD}")

    @classmethod
    def _in_folder(cls, folder: Path, patterns: Sequence[str]) -> Source:
        source = cls((file for pattern in patterns for file in sorted(folder.glob(pattern))), patterns)
        if not source.files:
            raise InsightError(f"{folder} holds no {source._kind} file.\n{_HOW_TO_RECORD}")
        return source

    def documents(self) -> Iterator[tuple[Place, Any]]:
        """Yield every JSON value with its place."""
        for number, file in enumerate(self.files):
            try:
                for line, document in reader.read(file, self._noting(file)):
                    yield Place(number, line), document
            except OSError as error:
                self._note(file, 0, f"cannot be read ({error.strerror})")

    def spans(self) -> Iterator[tuple[Place, Span]]:
        """Yield every span with its place. Raises InsightError in the end if there was none."""
        found = False
        for place, document in self.documents():
            for span in self._decode(place, document):
                found = True
                yield place, span
        if not found:
            raise self.nothing_found("spans")

    def note(self, place: Place, text: str) -> None:
        """Remember that something at a place was skipped, and why."""
        self._note(self.files[place.file], place.line, text)

    def nothing_found(self, wanted: str) -> InsightError:
        """Say why there is nothing of what was wanted."""
        what = self.notes[0] if self.notes else self._emptiness(wanted)
        return InsightError(f"{what}.\n{self._what_to_give()}")

    def documents_at(self, places: Iterable[Place]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield again the OTLP objects of some places, each with its file. What is wrong was noted before."""
        lines: dict[int, set[int]] = defaultdict(set)
        for place in places:
            lines[place.file].add(place.line)
        for number in sorted(lines):
            file = self.files[number]
            with contextlib.suppress(OSError):  # rotated away meanwhile
                for _, document in reader.read(file, lambda line, text: None, lines[number]):
                    yield file, document

    def spans_at(self, places: Iterable[Place]) -> Iterator[Span]:
        """Yield again the spans of some places."""
        for file, document in self.documents_at(places):
            yield from otlp.decode(document, file.name, lambda text: None)

    def _decode(self, place: Place, document: Any) -> Iterator[Span]:
        if isinstance(document, dict) and otlp.TRACES.resources in document:
            origin = self.files[place.file].name
            return otlp.decode(document, origin, lambda text: self.note(place, text))
        self.note(place, otlp.what_else(document))
        return iter(())

    def _noting(self, file: Path) -> reader.NoteLine:
        return lambda line, text: self._note(file, line, text)

    def _note(self, file: Path, line: int, text: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(Note(file, line, text))
        else:
            self.notes_left_off += 1

    def _what_to_give(self) -> str:
        return f"Give a {self._kind} file that a program wrote under the agent, or its folder."

    def _emptiness(self, wanted: str) -> str:
        if len(self.files) == 1:
            state = "is empty" if not self.files[0].stat().st_size else f"holds no {wanted}"
            return f"{self.files[0]} {state}: nothing was recorded in it"
        return f"the {len(self.files)} {self._kind} files in {self.files[0].parent} hold no {wanted}"
