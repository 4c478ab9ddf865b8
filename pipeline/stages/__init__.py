"""Stages that move frames into the pipeline: the reader, and the recorder and replayer of recordings."""
