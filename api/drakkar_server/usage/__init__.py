"""Who used how many accelerator-seconds."""
