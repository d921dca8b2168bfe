"""The gate of `edgegauge check`: candidates against limits on devices, in CI, three-valued."""
