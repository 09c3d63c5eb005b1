"""Scores: of reconstructions on posed scenes, and of speed."""
