"""Fine-tuning on photos: sets of photos, jobs, and tuned models. Knows no gradio."""
