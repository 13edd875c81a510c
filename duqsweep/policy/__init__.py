"""The policies: pi0.5 in plain torch, its checkpoints, and what goes in and comes out."""
