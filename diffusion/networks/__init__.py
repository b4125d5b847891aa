"""Raw networks, from layers up: what denoises, encodes, decodes and enlarges."""
