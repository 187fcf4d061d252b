"""Bulk bytes: artifacts, logs, heartbeats, in a folder or in S3."""
