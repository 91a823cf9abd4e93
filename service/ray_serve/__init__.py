"""Replicas of the service behind Ray Serve (an extra): application, router, front and cluster."""
