"""The HTTP server: uvicorn, its connections, and the life of the process."""
