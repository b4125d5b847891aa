"""The Explore tab: the map, the dream, and their frames, one a request."""
