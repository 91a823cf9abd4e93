"""From a request to frames, plans and depth, and from an inference to the response."""
