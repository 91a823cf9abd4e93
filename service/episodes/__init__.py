"""Episodes: frames of a walk that come one by one, and whose merged tokens answer questions."""
