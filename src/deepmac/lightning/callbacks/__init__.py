"""What a run does beside training: evaluate, draw, report, save."""
