"""The model: weights from Hugging Face's files, the forward pass, and what runs it."""
