"""The controller: observes the state remote, decides, and commits its decisions."""
