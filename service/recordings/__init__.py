"""Recorded walks: folders of frames, and ROS bags, read frame by frame as an episode takes them."""
