"""Fine-tuning on photos: sets of photos, trainings, and tuned models. Knows no gradio."""
