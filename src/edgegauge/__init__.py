"""edgegauge: pick, convert and measure language models on the device that will run them.

The command line is `edgegauge --help`; the same functions are importable from the modules
named after what they do (`predict`, `convert`, `measure`, `evaluate`, `choose`).
"""

__version__ = "0.1.0"
