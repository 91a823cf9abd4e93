"""What an episode costs a robot: first tokens, pushes, and ten thousand frames."""
