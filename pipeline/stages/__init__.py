"""Stages that bring frames in: the reader, and the recorder and replayer of recordings."""
