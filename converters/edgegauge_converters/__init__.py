"""Converters: one blueprint of a decoder, lowered to each on-device file format.

They are found through the entry-point group `edgegauge.converters`; `edgegauge` never imports this
package.
"""
