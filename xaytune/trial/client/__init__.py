"""The template and the processes of trials, as others see them; runs in actors, without torch."""
