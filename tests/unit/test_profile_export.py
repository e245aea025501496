"""Profiles in the formats of other tools, read back by what knows only those formats."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storescope.core.profiling.profile import Exclusivity, Frame, Profile, Sample, State, functions_of
from storescope.core.profiling.profiler import PerformanceProfiler
from storescope.export.pprof import pprof_bytes, write_pprof
from storescope.export.profile_text import text_bytes, write_text
from storescope.export.speedscope import speedscope_bytes, write_speedscope

MAIN = Frame("main", "/app/main.py", 3)
READ = Frame("Store.read", "/app/store.py", 40)
SLEEP = Frame("<built-in method time.sleep>")
FOREIGN = Frame("прочитать", "/app/файл.py", 7)


def profile_of(*samples: Sample) -> Profile:
    return Profile("checkout", "sampler", samples, functions_of(samples), 1.5, period=0.01)


PROFILE = profile_of(
    Sample((MAIN, READ), 0.75, 75),
    Sample((MAIN, READ, READ), 0.25, 25),
    Sample((MAIN, READ, SLEEP), 0.3, 30, State.BLOCKED),
    Sample((MAIN, FOREIGN), 0.2, 20, State.SUSPENDED),
)
EMPTY = profile_of()


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Read a message: its fields with integers and bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value  # type: ignore[assignment]
        else:
            assert key & 7 == 0, "only these two types of the wire are in profile.proto"
        yield key >> 3, value


def integers(data: bytes) -> list[int]:
    at, values = 0, []
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
    return values


def read_pprof(data: bytes) -> dict[str, Any]:
    """Decode what `profile.proto` describes, with every reference resolved."""
    raw: dict[int, list[Any]] = {}
    for number, value in fields(gzip.decompress(data)):
        raw.setdefault(number, []).append(value)
    texts = [text.decode() for text in raw[6]]
    assert texts[0] == "", "the first text is the empty one"
    functions = {}
    for function in map(dict, map(fields, raw.get(5, []))):
        functions[function[1]] = (
            texts[function[2]],
            texts[function.get(4, 0)],
            function.get(5, 0),
        )
    locations = {}
    for location in map(dict, map(fields, raw.get(4, []))):
        locations[location[1]] = functions[dict(fields(location[4]))[1]]
    samples = []
    for sample in map(dict, map(fields, raw.get(2, []))):
        label = dict(fields(sample[3]))
        stack = [locations[number] for number in reversed(integers(sample[1]))]
        samples.append((stack, integers(sample[2]), (texts[label[1]], texts[label[2]])))
    types = [dict(fields(kind)) for kind in raw[1]]
    return {
        "types": [(texts[kind[1]], texts[kind[2]]) for kind in types],
        "samples": samples,
        "duration": raw[10][0] if 10 in raw else 0,
        "period": raw[12][0] if 12 in raw else 0,
        "comments": [texts[number] for number in integers(raw[13][0])],
        "default": texts[raw[14][0]],
    }


def test_pprof_has_every_stack_with_its_weights() -> None:
    """Stacks, counts, nanoseconds, states, files and lines come back as they were, whatever the alphabet."""
    read = read_pprof(pprof_bytes(PROFILE))
    assert read["types"] == [("samples", "count"), ("time", "nanoseconds")]
    assert read["samples"] == [
        ([(f.function, f.file, f.line) for f in s.stack], [s.count, round(s.seconds * 1e9)], ("state", s.state.value))
        for s in PROFILE.samples
    ]  # fmt: skip
    assert (read["duration"], read["period"]) == (1_500_000_000, 10_000_000)
    assert read["comments"] == ["checkout", "exclusive"]
    assert read["default"] == "time"


def test_pprof_is_the_same_for_the_same_profile() -> None:
    """No time of writing is in the file, so that equal profiles are equal files."""
    assert pprof_bytes(PROFILE) == pprof_bytes(PROFILE)


def test_an_empty_profile_can_be_written() -> None:
    """An operation too short to be seen has a file like any other."""
    assert read_pprof(pprof_bytes(EMPTY))["samples"] == []
    assert json.loads(speedscope_bytes(EMPTY))["profiles"][0]["samples"] == []


def test_speedscope_has_what_its_schema_requires() -> None:
    """Each state is a sampled profile whose stacks point to shared frames; weights are seconds."""
    file = json.loads(speedscope_bytes(PROFILE))
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = file["shared"]["frames"]
    assert all(isinstance(frame["name"], str) for frame in frames)
    assert {"name": "прочитать", "file": "/app/файл.py", "line": 7} in frames
    assert {"name": "<built-in method time.sleep>"} in frames
    assert [profile["name"] for profile in file["profiles"]] == [
        "checkout: running",
        "checkout: blocked",
        "checkout: suspended",
    ]
    for profile in file["profiles"]:
        assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "seconds", 0)
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
        assert all(0 <= number < len(frames) for stack in profile["samples"] for number in stack)
    running = file["profiles"][0]
    stacks = [[frames[number]["name"] for number in stack] for stack in running["samples"]]
    assert stacks == [["main", "Store.read"], ["main", "Store.read", "Store.read"]]


def test_files_are_written(tmp_path: Path) -> None:
    """Each writer writes the bytes to the path that it is given."""
    write_speedscope(PROFILE, tmp_path / "a.speedscope.json")
    write_text(PROFILE, str(tmp_path / "a.txt"))
    assert (tmp_path / "a.speedscope.json").read_bytes() == speedscope_bytes(PROFILE)
    assert "Store.read (store.py:40)" in (tmp_path / "a.txt").read_text("utf-8")
    with pytest.raises(FileNotFoundError):
        write_pprof(PROFILE, tmp_path / "nowhere" / "a.pb.gz")


def test_the_table_shows_the_top_functions() -> None:
    """Self and cumulative times are told apart; a recursive function counts once in a stack."""
    top = PROFILE.top(2)
    assert [f.frame for f in top] == [MAIN, READ]
    assert [f.cumulative for f in top] == [pytest.approx(1.5), pytest.approx(1.3)]
    assert [f.frame for f in PROFILE.top(2, by="self")] == [READ, SLEEP]
    text = PROFILE.text(2)
    assert "of these 0.300 s blocked" in text
    assert "66.7" in text.splitlines()[-1]
    assert PROFILE.only(State.BLOCKED).top(1)[0].cumulative == 0.3
    assert EMPTY.text().startswith("checkout: 0.000 s in 0 functions")


@pytest.mark.parametrize(
    ("n", "by", "message"), [(0, "self", "n must be 1 or more, not 0"), (1, "x", "by must be")]
)
def test_a_bad_question_is_refused(n: int, by: Any, message: str) -> None:
    """An error names what was asked wrongly."""
    with pytest.raises(ValueError, match=message):
        PROFILE.top(n, by)


@pytest.mark.parametrize("write", [pprof_bytes, speedscope_bytes, text_bytes])
@pytest.mark.parametrize("wrong", [None, {}, 3])
def test_only_profiles_can_be_written(write: Any, wrong: object) -> None:
    """Anything else is named in the error."""
    with pytest.raises(TypeError, match=f"profile must be a Profile, not {wrong!r}"):
        write(wrong)


def test_an_unknown_state_is_refused() -> None:
    """A state that there is not has no empty profile; the text of one that there is will do."""
    with pytest.raises(
        ValueError, match="state must be one of 'running', 'blocked', 'suspended', not 'bogus'"
    ):
        PROFILE.only("bogus")  # type: ignore[arg-type]
    assert PROFILE.only("blocked") == PROFILE.only(State.BLOCKED)  # type: ignore[arg-type]


def test_what_cprofile_found_is_written_as_pairs() -> None:
    """A profile of cProfile has calls as counts, and the time of all its functions once."""

    def helper() -> int:
        return sum(range(2000))

    profiler = PerformanceProfiler()
    with profiler.profile("checkout"):
        for _ in range(20):
            helper()
    profile = profiler.get_profile("checkout")
    assert profile is not None
    read = read_pprof(pprof_bytes(profile))
    assert read["types"][0] == ("calls", "count")
    pairs = {
        tuple(name.rpartition(".")[2] for name, _, _ in stack): values for stack, values, _ in read["samples"]
    }
    assert pairs["helper", "sum>"][0] == 20
    own = sum(f.self_time for f in profile.functions)
    assert sum(values[1] for values in pairs.values()) / 1e9 == pytest.approx(own, rel=0.01, abs=1e-5)
    assert profile.exclusivity in tuple(Exclusivity)
