"""Evaluation: RoomQA, a synthetic embodied-QA world, and the runners that score a VLM on it."""
