"""Images and their classes: folders, files, data sets by name."""
