"""The control side: search, dispatch, front, report and tracking; never torch, never LIBERO."""
