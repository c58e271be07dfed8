"""The toy model's pictures, prompts and network: what its training, its test and the demo share."""
