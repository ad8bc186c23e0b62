"""Training one configuration: the loop, its events, and checkpoints. PyTorch only; knows no Ray and no sweep."""
