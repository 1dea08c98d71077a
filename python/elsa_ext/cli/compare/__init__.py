"""``elsa-ext compare``: train the same architecture with several local operators."""
