"""Time to first token at the real widths and depths of published models, with random weights, over HTTP."""
