"""``elsa-ext info``: what a bug report needs."""
