"""Which configuration comes next: Optuna's samplers behind ask and tell."""
