"""Videos of episodes, replayed from their recorded actions."""
