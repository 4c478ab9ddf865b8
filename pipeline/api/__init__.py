"""The Python API: subscriptions, recordings and runs for programs and notebooks. `headrace/__init__.py` names it."""
