"""Five programs, each as a plain script and with xaytune (``_tuned``)."""
