"""Reads records: frames become rows with arguments and blobs."""
