"""Models as Hugging Face lays them on disk: what both the trainer and the server read."""
