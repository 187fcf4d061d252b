"""The HTTP face of the controller. Nothing listens yet: polling and file watching wake the loop."""
