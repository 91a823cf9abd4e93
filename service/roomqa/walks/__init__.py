"""Walks: a camera that turns and goes through furnished rooms, and questions about all that it saw.

`tosa-vqa scene --walk` writes them, and `evals.rooms.walks` has the frozen splits.
"""
