"""What lies in the folder of a training run, beside ``checkpoint.WEIGHTS_NAME``.

A module of its own, because who only reads such a folder need not wait for the trainer's imports.
"""

STATE_NAME = "state.safetensors"  # all it takes to go on, but for a guide
METRICS_NAME = "metrics.jsonl"
RUN_NAME = "run.json"  # settings
PROGRESS_NAME = "progress.json"  # how far a fine-tuning is
STEPS_NAME = "steps"  # folder of earlier weights, each named after the images shown
SAMPLES_NAME = "samples"  # folder of grids, named alike
BASE_GRID = "base.png"  # among them: what the base model draws from the same seeds
