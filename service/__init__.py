"""The HTTP service and command line around a vision-language model with per-request token merging.

This package composes tosa, vlm and depth; nothing imports it.
"""
