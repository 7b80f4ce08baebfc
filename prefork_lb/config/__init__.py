"""The configuration: from TOML, or the environment, to a checked, frozen model."""
