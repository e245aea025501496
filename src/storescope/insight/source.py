"""The spans of OTLP/JSON files; what cannot be read becomes a note."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from storescope.insight import otlp, reader
from storescope.insight.model import InsightError, Note, Span

TRACE_FILES: Final = "traces-*.jsonl"
#: Notes kept of what was skipped; a file of another kind would give one per line.
MAX_NOTES: Final = 20

_HOW_TO_RECORD: Final = (
    "Record a program first: opentelemetry-instrument python app.py (or see: storescope demo)"
)
_WHAT_TO_GIVE: Final = f"Give a {TRACE_FILES} file that a program wrote under the agent, or its folder."


class Place(NamedTuple):
    """Where an OTLP object stands: the number of its file in the source, and the line where it begins."""

    file: int
    line: int


class Source:
    """OTLP/JSON files, and notes on what could not be read of them."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self.notes: list[Note] = []
        self.notes_left_off = 0

    @classmethod
    def at(cls, path: Path) -> Source:
        """Find the trace files at `path`, a file or a folder. Raises InsightError where there is none."""
        try:
            if path.is_dir():
                return cls._in_folder(path)
            if path.is_file():
                return cls([path])
            if path.exists():
                raise InsightError(f"{path} is neither a file nor a folder.\n{_WHAT_TO_GIVE}")
        except OSError as error:
            raise InsightError(f"{path} cannot be read: {error.strerror}.") from error
        raise InsightError(f"{path} does not exist.\n{_HOW_TO_RECORD}")

    @classmethod
    def _in_folder(cls, folder: Path) -> Source:
        files = sorted(folder.glob(TRACE_FILES))
        if not files:
            raise InsightError(f"{folder} holds no {TRACE_FILES} file.\n{_HOW_TO_RECORD}")
        return cls(files)

    def spans(self) -> Iterator[tuple[Place, Span]]:
        """Yield every span with its place. Raises InsightError in the end if there was none."""
        found = False
        for number, file in enumerate(self.files):
            try:
                for line, document in reader.read(file, self._noting(file)):
                    place = Place(number, line)
                    for span in self._decode(file, line, document):
                        found = True
                        yield place, span
            except OSError as error:
                self._note(file, 0, f"cannot be read ({error.strerror})")
        if not found:
            what = self.notes[0] if self.notes else self._emptiness()
            raise InsightError(f"{what}.\n{_WHAT_TO_GIVE}")

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

    def _decode(self, file: Path, line: int, document: Any) -> Iterator[Span]:
        if isinstance(document, dict) and "resourceSpans" in document:
            note = self._noting(file)
            return otlp.decode(document, file.name, lambda text: note(line, text))
        self._note(file, line, otlp.what_else(document))
        return iter(())

    def _noting(self, file: Path) -> reader.NoteLine:
        return lambda line, text: self._note(file, line, text)

    def _note(self, file: Path, line: int, text: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(Note(file, line, text))
        else:
            self.notes_left_off += 1

    def _emptiness(self) -> str:
        if len(self.files) == 1:
            state = "is empty" if not self.files[0].stat().st_size else "holds no spans"
            return f"{self.files[0]} {state}: nothing was recorded in it"
        return f"the {len(self.files)} {TRACE_FILES} files in {self.files[0].parent} hold no spans"
