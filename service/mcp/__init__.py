"""An MCP server: the service as tools of an agent (an extra, `mcp`)."""
