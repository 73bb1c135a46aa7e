"""Online training: a model draws, the pipeline's own models speak, hear and judge, and it learns from their scores."""
