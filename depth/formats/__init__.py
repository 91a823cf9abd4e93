"""Readers of the file formats of depth: bytes in, one array of numbers out."""
