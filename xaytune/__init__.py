"""xaytune: hyperparameter tuning of PyTorch trainers on Ray."""
