"""Who asks, and what they may: Kubernetes answers both."""
