"""Every name that storescope gives a span, an attribute or a metric.

`mcp.*`, `gen_ai.*`, `error.*` and `network.*` are the OpenTelemetry semantic conventions for MCP; they are
spelled out here because the conventions package marks them as moved. `storescope.*` names are ours.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.1"
SCOPE_NAME: Final = "storescope"

# Attributes of the MCP conventions.
MCP_METHOD_NAME: Final = "mcp.method.name"
MCP_PROTOCOL_VERSION: Final = "mcp.protocol.version"
MCP_RESOURCE_URI: Final = "mcp.resource.uri"
MCP_SESSION_ID: Final = "mcp.session.id"
JSONRPC_REQUEST_ID: Final = "jsonrpc.request.id"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
ERROR_TYPE: Final = "error.type"
NETWORK_TRANSPORT: Final = "network.transport"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# Attributes of our own.
SERVICE_NAME: Final = "storescope.service.name"
STORE_SCOPE: Final = "storescope.store.scope"
AGENT_ID: Final = "storescope.agent.id"
STORE_OPERATION: Final = "storescope.store.operation"
TOOL_ALIAS: Final = "storescope.tool.alias"
CACHE_RESULT: Final = "storescope.cache.result"
PHASE: Final = "storescope.phase"
REQUEST_SIZE: Final = "storescope.request.size"
RESPONSE_SIZE: Final = "storescope.response.size"
CALL_DIGEST: Final = "storescope.call.digest"
CALL_DIGEST_SKIPPED: Final = "storescope.call.digest.skipped"
EVENT_LOOP_BLOCKED: Final = "storescope.event_loop.blocked"
OPERATION_AGE: Final = "storescope.operation.age"
THREAD_CPU_TIME: Final = "storescope.thread.cpu_time"
SIGNAL: Final = "storescope.signal"
EXPORT_UNCONFIRMED: Final = "storescope.export.unconfirmed"

# Values of `error.type` that are not the name of an exception.
ERROR_TOOL: Final = "tool_error"
ERROR_CANCELLED: Final = "cancelled"
ERROR_TIMEOUT: Final = "timeout"
ERROR_CONNECTION_CLOSED: Final = "connection_closed"
ERROR_TOOL_NOT_FOUND: Final = "tool_not_found"
ERROR_SERVICE_NOT_FOUND: Final = "service_not_found"
ERROR_UNFINISHED: Final = "storescope.unfinished"
ERROR_OTHER: Final = "_OTHER"

# Metrics.
CLIENT_OPERATION_DURATION: Final = "mcp.client.operation.duration"
CLIENT_SESSION_DURATION: Final = "mcp.client.session.duration"
OPERATION_DURATION: Final = "storescope.operation.duration"
OPERATIONS_ACTIVE: Final = "storescope.operations.active"
TELEMETRY_DROPPED: Final = "storescope.telemetry.dropped"

#: What the specification marks a series with that stands for all beyond a limit.
METRIC_OVERFLOW: Final = "otel.metric.overflow"

#: Bucket bounds, in seconds, that the MCP conventions ask of their duration histograms.
DURATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
