"""The packaged demo: an agent-like program, a small MCP server, and what runs them under the agent."""
