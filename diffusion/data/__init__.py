"""From files that people give to batches: pictures, labels, and latents of them."""
