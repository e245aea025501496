"""Profiles as https://www.speedscope.app reads them: JSON, one profile for each state that was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from storescope.core.profiling.profile import Frame, Profile, State, check_profile

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def speedscope_bytes(profile: Profile) -> bytes:
    """Encode a profile; weights are seconds."""
    check_profile(profile)
    numbers: dict[Frame, int] = {}
    states = [state for state in State if any(sample.state is state for sample in profile.samples)]
    file = {
        "$schema": _SCHEMA,
        "name": f"{profile.name} ({profile.exclusivity.value})",
        "exporter": "storescope",
        "activeProfileIndex": 0,
        "profiles": [_sampled(profile, state, numbers) for state in states or [State.RUNNING]],
        "shared": {"frames": [_frame(frame) for frame in numbers]},
    }
    return json.dumps(file, separators=(",", ":")).encode()


def write_speedscope(profile: Profile, path: str | Path) -> None:
    """Write a profile to a file, usually `*.speedscope.json`; raises OSError."""
    Path(path).write_bytes(speedscope_bytes(profile))


def _sampled(profile: Profile, state: State, numbers: dict[Frame, int]) -> dict[str, Any]:
    """Write the stacks of one state, and give each of their frames a number."""
    samples = profile.only(state).samples
    return {
        "type": "sampled",
        "name": f"{profile.name}: {state.value}",
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(sample.seconds for sample in samples),
        "samples": [
            [numbers.setdefault(frame, len(numbers)) for frame in sample.stack] for sample in samples
        ],
        "weights": [sample.seconds for sample in samples],
    }


def _frame(frame: Frame) -> dict[str, Any]:
    place = {"file": frame.file, "line": frame.line} if frame.file else {}
    return {"name": frame.function, **place}
