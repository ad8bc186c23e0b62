"""What runs in the template, and in the processes of trials, which are its forks."""
