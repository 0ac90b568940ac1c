"""The `dl4ia` command: what users do with studies that have run."""
