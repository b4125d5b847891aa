"""The page that visitors see, and the same actions as endpoints."""
