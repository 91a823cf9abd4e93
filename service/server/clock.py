"""How the server tells the application when a request began."""

FIRST_BYTE = "first_byte_s"
"""Where in the state of its scope a request finds when its first byte arrived, in seconds of `perf_counter`.

Of a pipelined request: when the answer before it was sent. Servers other than ours do not say.
"""
