"""headrace: runtime security and tracing for Linux hosts. The rooms of the engine are links to the folders beside this
one, so that a checkout and an installed wheel have the same names.
"""

__version__ = "0.1.0"
