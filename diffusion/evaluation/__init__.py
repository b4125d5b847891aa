"""How good pictures are: features, distances, and the whole report."""
