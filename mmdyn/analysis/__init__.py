"""Cost of a model, and pictures of its predictions and its training."""
