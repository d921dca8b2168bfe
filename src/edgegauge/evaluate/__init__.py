"""Evaluating: exact-match accuracy and perplexity of an artifact, through its runtime."""
