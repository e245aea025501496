"""Profiles as pprof reads them: gzipped protocol buffers, `go tool pprof -http=: FILE`.

The format is `profile.proto` of github.com/google/pprof.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

from storescope.core.profiling.profile import Frame, Profile, Sample, check_profile
from storescope.export.protobuf import integer, message, packed

# Numbers of fields.
_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING = 1, 2, 4, 5, 6
_DURATION, _PERIOD_TYPE, _PERIOD, _COMMENT, _DEFAULT_TYPE = 10, 11, 12, 13, 14

#: What the counts of a profile are, by its source.
_COUNTS: Final = {"cprofile": "calls", "sampler": "samples"}


def pprof_bytes(profile: Profile) -> bytes:
    """Encode a profile; each sample has its count, its nanoseconds, and its state as the label `state`."""
    return gzip.compress(_Encoder().encode(check_profile(profile)), mtime=0)


def write_pprof(profile: Profile, path: str | Path) -> None:
    """Write a profile to a file, usually `*.pb.gz`; raises OSError."""
    Path(path).write_bytes(pprof_bytes(profile))


class _Encoder:
    """One message, and its tables: texts by their place, functions by an id from 1 on. A location is a function."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {"": 0}
        self._frames: dict[Frame, int] = {}

    def encode(self, profile: Profile) -> bytes:
        count, time = _COUNTS[profile.source], self._value_type("time", "nanoseconds")
        parts = [
            message(_SAMPLE_TYPE, self._value_type(count, "count")),
            message(_SAMPLE_TYPE, time),
            *(message(_SAMPLE, self._sample(sample)) for sample in profile.samples),
            integer(_DURATION, _nanoseconds(profile.duration)),
            message(_PERIOD_TYPE, time),
            integer(_PERIOD, _nanoseconds(profile.period)),
            packed(_COMMENT, [self._text(profile.name), self._text(profile.exclusivity.value)]),
            integer(_DEFAULT_TYPE, self._text("time")),
        ]
        # The tables are complete only now.
        for frame, number in self._frames.items():
            parts.append(message(_LOCATION, integer(1, number) + message(4, self._line(frame, number))))
            parts.append(message(_FUNCTION, self._function(frame, number)))
        parts += [message(_STRING, text.encode("utf-8", "replace")) for text in self._texts]
        return b"".join(parts)

    def _sample(self, sample: Sample) -> bytes:
        locations = [
            self._frames.setdefault(frame, len(self._frames) + 1) for frame in reversed(sample.stack)
        ]
        label = integer(1, self._text("state")) + integer(2, self._text(sample.state.value))
        values = [sample.count, _nanoseconds(sample.seconds)]
        return packed(1, locations) + packed(2, values) + message(3, label)

    def _line(self, frame: Frame, number: int) -> bytes:
        return integer(1, number) + integer(2, frame.line)

    def _function(self, frame: Frame, number: int) -> bytes:
        # No system name: with one that is the same, pprof takes `<...>` in it for a template of C++ and cuts it out.
        return (
            integer(1, number)
            + integer(2, self._text(frame.function))
            + integer(4, self._text(frame.file))
            + integer(5, frame.line)
        )

    def _value_type(self, kind: str, unit: str) -> bytes:
        return integer(1, self._text(kind)) + integer(2, self._text(unit))

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
