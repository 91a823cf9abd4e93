"""Our service with and without vLLM behind it, beside vLLM by itself, on the same cores."""
