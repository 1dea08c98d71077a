"""``elsa-ext bench``: time the ops, the layer and the models against what people would use in their place."""
