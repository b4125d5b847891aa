"""The web app over the diffusion core."""
