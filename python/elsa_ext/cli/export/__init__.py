"""``elsa-ext export``: write a model in a form that runs without this package's Python."""
