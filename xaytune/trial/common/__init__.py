"""What the processes of trials and their actors talk by; runs in each of them."""
