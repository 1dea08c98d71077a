"""``elsa-ext attend``: draw where the layers of a model look."""
