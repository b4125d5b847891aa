"""From a recipe to pictures: recipes, models, and the worker. Knows no gradio."""
