"""The owner's tab: photos, trainings and tuned models."""
