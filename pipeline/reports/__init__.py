"""Commands that look at what a run saw: summaries, a live screen, suggestions."""
