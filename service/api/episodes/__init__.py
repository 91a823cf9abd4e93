"""The endpoints of episodes."""
