"""Measuring: a parent (`manager`) that waits, a child (`worker`) that runs one artifact."""
