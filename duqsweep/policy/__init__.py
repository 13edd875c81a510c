"""Policies: pi0.5 in plain torch, its weights, and what goes in and comes out."""
