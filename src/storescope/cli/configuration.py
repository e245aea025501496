"""What `storescope config` prints, and docs/configuration.md, which is made of the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from storescope.cli.layout import Column, Layout, fold
from storescope.insight import words
from storescope.settings import Reading, Settings, Variable

#: The command that renews the page, for the page itself and for the test that finds it out of date.
RENEW: Final = "storescope config --markdown > docs/configuration.md"

_HIDDEN: Final = "(hidden)"
_INDENT: Final = 4
_COLUMNS: Final = (Column("variable", minimum=20), Column("in force", minimum=12), Column(""))
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/@]*@")


@dataclass(frozen=True, slots=True)
class OtelVariable:
    """A variable of OpenTelemetry's own that matters here."""

    name: str
    meaning: str
    secret: bool = False


OTEL_VARIABLES: Final = (
    OtelVariable(
        "OTEL_SERVICE_NAME",
        "The program's name in every trace and metric. Default: the name of the script or module that runs.",
    ),
    OtelVariable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where traces and metrics are sent, such as `http://localhost:4318`. Default: `localhost:4318` if something "
        "answers there, else the local files.",
    ),
    OtelVariable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "`grpc` or `http/protobuf`. Default: `grpc` for port 4317, else `http/protobuf`.",
    ),
    OtelVariable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the receiver, such as `authorization=Bearer%20…`, with commas between them.",
        secret=True,
    ),
    OtelVariable(
        "OTEL_TRACES_EXPORTER",
        "Exporters of traces, with commas between them: `otlp`, `storescope_file`, `console`, `none`, or any that is "
        "installed. `OTEL_METRICS_EXPORTER` is the same for metrics.",
    ),
    OtelVariable("OTEL_METRICS_EXPORTER", "Exporters of metrics."),
    OtelVariable(
        "OTEL_PROPAGATORS",
        "How trace context is handed on: to MCP servers where the store lets us, and to any other service. Default: "
        "`tracecontext,baggage`.",
    ),
    OtelVariable(
        "OTEL_TRACES_SAMPLER",
        "Which traces are recorded, such as `parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.1`. Default: "
        "all. Metrics count every call, sampled or not.",
    ),
    OtelVariable("OTEL_SDK_DISABLED", "`true` switches OpenTelemetry off, and storescope with it."),
    OtelVariable(
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        "Instrumentations that the launcher leaves out, with commas between them; `storescope` is ours.",
    ),
    OtelVariable(
        "OTEL_PYTHON_DISTRO", "The distribution that the launcher takes where several are installed."
    ),
    OtelVariable(
        "OTEL_PYTHON_CONFIGURATOR", "The configurator that the launcher takes where several are installed."
    ),
)

_PAGE: Final = """\
# Configuration

Everything is set by environment variables, and everything has a default. `storescope config` shows the tables below
with the values that are in force where it runs; `--json` is the same for programs. Made by
`{renew}`.

A variable that is empty is not set. A bad value never stops a program: one warning names the variable, the value and
what is allowed, and the default is used unless the table says otherwise. `storescope doctor` lists bad values too.

## storescope's own

| variable | default | allowed | |
|---|---|---|---|
{ours}

Switches take `on`, `off`, `true`, `false`, `yes`, `no`, `1` and `0`, in any case.

## OpenTelemetry's

All of them mean what they mean everywhere. These matter most:

| variable | |
|---|---|
{theirs}

`OTEL_EXPORTER_OTLP_TRACES_…` and `OTEL_EXPORTER_OTLP_METRICS_…` set endpoint, protocol and headers for one signal.
What goes where, and what happens when it cannot: [exporting.md](exporting.md).
"""


def render(readings: Mapping[str, Reading], otel: Mapping[str, str], width: int | None) -> Iterator[Text]:
    """Yield the lines of both tables, as wide as `width` allows or as they need where it is None."""
    ours = [(_cells(reading), list(_about(reading))) for reading in readings.values()]
    theirs = [(_otel_cells(variable, otel), [variable.meaning]) for variable in OTEL_VARIABLES]
    layout = Layout.fit(_COLUMNS, [cells for cells, _ in (*ours, *theirs)], width)
    yield layout.titles("variable")
    for number, entries in enumerate((ours, theirs)):
        if number:
            yield from (Text(), Text("OpenTelemetry's, of which these matter most", "dim"))
        for cells, remarks in entries:
            yield layout.line(cells)
            for remark in remarks:
                yield from fold(Text(remark.replace("`", ""), "dim"), _INDENT, width)


def document(readings: Mapping[str, Reading], otel: Mapping[str, str]) -> dict[str, Any]:
    """Return the same as a JSON object. Values are texts as the environment has them; null where none is set."""
    return {
        "format": "storescope.config/1",
        "variables": [_row(reading) for reading in readings.values()],
        "opentelemetry": [
            {
                "name": variable.name,
                "value": _otel_value(variable, otel) or None,
                "set": variable.name in otel,
                "meaning": variable.meaning,
            }
            for variable in OTEL_VARIABLES
        ],
    }


def markdown() -> str:
    """Return docs/configuration.md."""
    variables = Settings.variables().values()
    ours = (
        f"| `{variable.name}` | {variable.default_text} | {variable.allowed} | {_meaning(variable)} |"
        for variable in variables
    )
    theirs = (f"| `{variable.name}` | {variable.meaning} |" for variable in OTEL_VARIABLES)
    return _PAGE.format(renew=RENEW, ours="\n".join(ours), theirs="\n".join(theirs))


def _meaning(variable: Variable) -> str:
    unless_bad = f" Where it is bad, {variable.fallback[1]}." if variable.fallback else ""
    return variable.meaning + unless_bad


def _row(reading: Reading) -> dict[str, Any]:
    variable = reading.variable
    return {
        "name": variable.name,
        "value": _shown(reading),
        "state": _state(reading),
        "default": variable.default_text,
        "allowed": variable.allowed,
        "meaning": variable.meaning,
        "complaint": reading.complaint or None,
    }


def _state(reading: Reading) -> str:
    if not reading.text:
        return "default"
    return "bad" if reading.complaint else "set"


def _shown(reading: Reading) -> str:
    """Return the value in force, as the environment would have it."""
    if not reading.text:
        return reading.variable.default_text
    if reading.complaint:
        fallback = reading.variable.fallback
        return fallback[1] if fallback else reading.variable.default_text
    return _HIDDEN if reading.variable.secret else reading.text


def _cells(reading: Reading) -> tuple[Text, Text, Text]:
    state = _state(reading)
    style = {"bad": "red", "set": "bold"}.get(state, "")
    shown = words.plain(_shown(reading).replace("`", ""), 120)
    return Text(reading.variable.name), Text(shown, style), Text(state, style or "dim")


def _about(reading: Reading) -> Iterator[str]:
    if reading.complaint:
        yield words.plain(reading.complaint)
    yield f"{reading.variable.meaning} Allowed: {reading.variable.allowed}."


def _otel_value(variable: OtelVariable, otel: Mapping[str, str]) -> str:
    text = otel.get(variable.name, "")
    return _HIDDEN if text and variable.secret else _CREDENTIALS.sub("", text)


def _otel_cells(variable: OtelVariable, otel: Mapping[str, str]) -> tuple[Text, Text, Text]:
    value = words.plain(_otel_value(variable, otel), 120)
    state = ("set", "bold") if value else ("not set", "dim")
    return Text(variable.name), Text(value or "-", state[1]), Text(*state)
