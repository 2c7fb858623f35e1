"""What runs are made of beside the model: checkpoints, and results in files."""
