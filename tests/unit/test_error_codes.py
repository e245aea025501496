"""The codes by which mcpstore 2.x tells its errors apart, without a store."""

from __future__ import annotations

import pytest

from storescope.stores.mcpstore_v2 import ERROR_CODES, SENT_CODES, TARGETS, adapter


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (RuntimeError("call_disconnected: the server went away"), "call_disconnected"),
        (RuntimeError("a_new_code: of a release to come"), "_OTHER"),
        (RuntimeError("no code at all"), "_OTHER"),
        (RuntimeError(), "_OTHER"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
    ],
)
def test_an_error_has_its_code_its_type_or_other(error: BaseException, error_type: str) -> None:
    """Codes come from a closed list, so that no text of an error becomes the name of a series."""
    assert adapter().read_error(TARGETS[0], error).error_type == error_type


def test_codes_of_requests_that_went_out_are_codes() -> None:
    """The list of those is a part of the closed list."""
    assert SENT_CODES < ERROR_CODES
