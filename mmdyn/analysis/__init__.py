"""What a model costs, and pictures of what it does."""
