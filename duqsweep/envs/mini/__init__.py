"""The suite `duq_mini`: our own tasks inside LIBERO's classes, with nothing to download."""
