"""How a diagnosis is printed: a line for each finding, with what to do about it below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from storescope.cli.doctor.examination import Diagnosis
from storescope.cli.doctor.findings import Finding, Level
from storescope.cli.layout import GAP, fold
from storescope.cli.timeline import Glyphs
from storescope.insight import words

_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
_MARK_WIDTH: Final = 2
_MAX_SUBJECT: Final = 34


def render(diagnosis: Diagnosis, glyphs: Glyphs, width: int | None) -> Iterator[Text]:
    """Yield the lines of a diagnosis, folded to `width` unless it is None."""
    subjects = [finding.subject for findings in diagnosis.sections.values() for finding in findings]
    column = min(_MAX_SUBJECT, max(map(len, subjects), default=0))
    for section, findings in diagnosis.sections.items():
        yield Text(section, "bold")
        for finding in findings:
            yield from _lines(finding, column, glyphs, width)
        yield Text()
    yield _summary(diagnosis)


def _lines(finding: Finding, column: int, glyphs: Glyphs, width: int | None) -> Iterator[Text]:
    marks = {Level.OK: glyphs.passed, Level.WARNING: glyphs.warned, Level.PROBLEM: glyphs.failed}
    style = _STYLES[finding.level]
    indent = _MARK_WIDTH + column + GAP
    subject = words.plain(finding.subject, column)
    first, *rest = fold(Text(words.plain(finding.text)), indent, width)
    text = Text(first.plain[indent:], style if finding.level is Level.PROBLEM else "")
    yield Text.assemble((marks[finding.level], style), " ", subject.ljust(column + GAP), text)
    yield from rest
    for detail in finding.details:
        yield from fold(Text(words.plain(detail), "dim"), indent, width)
    if finding.advice:
        yield from fold(Text(words.plain(finding.advice), "bold"), indent, width)


def _summary(diagnosis: Diagnosis) -> Text:
    problems, warnings = diagnosis.count(Level.PROBLEM), diagnosis.count(Level.WARNING)
    if not problems and not warnings:
        return Text("All is well.", "green")
    counted = f"{words.plural(problems, 'problem')}, {words.plural(warnings, 'warning')}."
    return Text(counted.replace("0 problems", "no problem").capitalize(), "red" if problems else "yellow")
