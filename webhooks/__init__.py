"""The HTTP face of a controller: webhooks in, wake-ups out, in a process of its own. It reads nothing of git."""
