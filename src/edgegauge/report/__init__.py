"""Reporting: text and one HTML page, made from result files only."""
