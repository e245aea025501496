"""Connections that are shared: the pool for threads and for asyncio, MCP sessions and TCP to fill it with."""
