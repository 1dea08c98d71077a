"""``elsa-ext classify``: name what is on images."""
