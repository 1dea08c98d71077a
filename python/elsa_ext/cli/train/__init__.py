"""``elsa-ext train``: train a classifier, in one process or many."""
