"""How services and requests are named, whichever adapter read them."""

from __future__ import annotations

import pytest

from storescope import semconv
from storescope.stores.adapter import Described
from storescope.stores.subjects import (
    MAX_DESCRIPTIONS,
    DescriptionCache,
    Scope,
    ServiceIdentity,
    public_uri,
    request_subject,
    service_identity,
)


def test_at_most_1024_descriptions_are_kept() -> None:
    """However many names an application calls: the oldest go first, and the same name takes one place."""
    cache = DescriptionCache()
    described = Described(request_subject("tools/call", ServiceIdentity(), Scope()))
    for number in range(MAX_DESCRIPTIONS + 10):
        cache.put((None, f"tool {number}"), described)
        cache.put((None, f"tool {number}"), described)

    assert len(cache) == MAX_DESCRIPTIONS == 1024
    assert cache.get((None, "tool 9")) is None
    assert cache.get((None, "tool 10")) is described


def test_descriptions_are_kept_per_scope() -> None:
    """One alias may stand for two tools, the store's and an agent's."""
    cache = DescriptionCache()
    everybodys, bobs = (
        Described(request_subject("tools/call", ServiceIdentity(), Scope(agent))) for agent in (None, "bob")
    )
    cache.put((None, "lab_echo"), everybodys)
    cache.put(("bob", "lab_echo"), bobs)

    assert cache.get((None, "lab_echo")) is everybodys
    assert cache.get(("bob", "lab_echo")) is bobs
    cache.clear()
    assert cache.get((None, "lab_echo")) is None


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("https://user:pass@example.org/mcp?key=k#part", "example.org", 443),
        ("http://127.0.0.1:8931/mcp", "127.0.0.1", 8931),
        ("http://example.org:99999/mcp", "example.org", None),
    ],
)
def test_of_a_services_url_host_and_port_are_kept(url: str, address: str, port: int | None) -> None:
    """Credentials, path and query are not; a port that is none is left off."""
    attributes = service_identity("web", url, None).attributes()

    expected = {
        semconv.SERVICE_NAME: "web",
        semconv.NETWORK_TRANSPORT: "tcp",
        semconv.NETWORK_PROTOCOL_NAME: "http",
        semconv.SERVER_ADDRESS: address,
        semconv.SERVER_PORT: port,
    }
    assert attributes == {key: value for key, value in expected.items() if value is not None}


def test_of_a_resources_uri_credentials_and_query_are_cut_off() -> None:
    """What is left names the resource."""
    assert public_uri("https://user:pass@example.org/a?sig=s#part") == "https://example.org/a"
    assert public_uri("lab://a") == "lab://a"
    assert public_uri("db:bob:hunter2@host/x") == "db:host/x"


@pytest.mark.parametrize("uri", ["https://bob:hunter2@ex\u2100mple.com/a", "https://[hunter2/"])
def test_an_address_that_cannot_be_is_left_off(uri: str) -> None:
    """What no parser takes may hold a password anywhere: the scheme is kept."""
    assert public_uri(uri) == "https:"
    assert service_identity("web", uri, None).attributes() == {
        semconv.SERVICE_NAME: "web",
        semconv.NETWORK_TRANSPORT: "tcp",
        semconv.NETWORK_PROTOCOL_NAME: "http",
    }


def test_a_name_cannot_steer_a_terminal_or_begin_a_line() -> None:
    """Control characters do not get into spans, metrics and warnings."""
    call = request_subject("tools/call", ServiceIdentity("lab"), Scope(), tool="echo\nCRITICAL \x1b[31m")
    assert call.span_name == "tools/call echo?CRITICAL ?[31m"


def test_metrics_get_neither_scope_nor_alias_nor_uri() -> None:
    """What would multiply the series of a metric stands on spans alone."""
    service = ServiceIdentity("lab", "pipe")
    call = request_subject("tools/call", service, Scope("bob"), tool="echo", alias="lab_echo")
    read = request_subject("resources/read", service, Scope("bob"), uri="lab://a")

    assert {semconv.STORE_SCOPE, semconv.AGENT_ID, semconv.TOOL_ALIAS} <= call.span_attributes.keys()
    assert read.span_attributes[semconv.MCP_RESOURCE_URI] == "lab://a"
    for subject in (call, read):
        assert not {
            semconv.STORE_SCOPE,
            semconv.AGENT_ID,
            semconv.TOOL_ALIAS,
            semconv.MCP_RESOURCE_URI,
        } & set(subject.metric_attributes)
