"""One loop, what it can train a denoiser for, and what is made of a trained one."""
