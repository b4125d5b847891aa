"""Training of what stands between pictures and x0: autoencoders and upscalers."""
