"""``elsa-ext evaluate``: measure a checkpoint on a data set."""
