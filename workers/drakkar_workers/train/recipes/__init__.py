"""What each recipe brings to the loop: its model, its batches and its loss."""
