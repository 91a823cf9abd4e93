"""What a client waits for beside the work: real clients on kept-alive connections, and plain FastAPI."""
