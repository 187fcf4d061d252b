"""What dstack says to GitHub, GitLab, Gitea and Forgejo: commit statuses, a comment, webhooks. No run needs it."""
