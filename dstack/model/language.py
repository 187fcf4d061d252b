"""The keys of both files with a sentence each: what readers accept, what the schema offers, what the reference has."""

from collections.abc import Mapping

Table = Mapping[str, str]

WORKFLOW: Table = {
    "name": "Becomes `dstack run <name>`. Lower-case letters, digits and single dashes; unique.",
    "help": "Shown by `dstack run --help`.",
    "image": "A Docker image for the commands. Without it they run as a process on the runner's machine.",
    "pull": "`always`: pull the image for every job, so that a tag that has moved is followed.",
    "commands": "Run in order by one shell; the first that fails ends the job with its exit code.",
    "shell": "`sh` (`sh -e`), or `bash` (`bash -eo pipefail`).",
    "depends-on": "Workflows that run first, or `workflow:tag`: their artifacts appear at the same paths.",
    "artifacts": "Files and folders that are saved when the job ends, relative to the working directory.",
    "metrics": "JSON files among the artifacts whose numbers `dstack metrics` shows.",
    "resources": "What must be free on a runner, and the limits of a container.",
    "env": "Environment. It stands in git: secrets belong into `secrets`.",
    "secrets": "Names of environment variables that the runner's machine supplies; masked in logs.",
    "volumes": "Folders that runners offer, as `NAME:PATH` or `NAME:PATH:ro`.",
    "cache-dirs": "Folders kept on each runner between jobs; never part of a result.",
    "working-dir": "Where the commands start, from the top of the repository.",
    "timeout": "The job fails after it, like `90s` or `2h30m`.",
    "stop-grace": "The time between asking the processes of a job to end and ending them; 30s.",
    "retry": "How many attempts more, or which reasons, how many and after which wait.",
    "matrix": "One job for each combination of these values, which are variables.",
    "max-parallel": "At most so many jobs of this workflow of a run at the same time.",
    "cache": "`false`: the result never stands in for that of another run.",
    "labels": "Labels that a runner must carry, all of them.",
    "on": "What starts it by itself: pushes, pull requests, the clock.",
}
ON: Table = {
    "push": "Branches and tags that are pushed; with nothing behind it, every branch.",
    "pull-request": "Pull or merge requests that are opened or get a new head.",
    "schedule": "A line of cron, like `30 4 * * 1-5`, in UTC; with a zone, or a list of them.",
}
PUSH: Table = {
    "branches": "Patterns of names; `!` takes back, and the last one that matches decides.",
    "tags": "Likewise for tags. Without `branches` beside it, no branch is meant.",
    "paths": "Only if a path has changed that these patterns choose; not for tags.",
}
PULL_REQUEST: Table = {
    "branches": "Patterns of the branches it is to be merged into.",
    "paths": "Only if it changes a path that these patterns choose.",
}
SCHEDULE: Table = {
    "cron": "Minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).",
    "zone": "A time zone, like `Europe/Berlin`; UTC.",
}

DEPENDS_ON: Table = {
    "workflows": "Workflows that run first, or `workflow:tag`.",
    "repo": "The files of the repository that this workflow depends on.",
}
REPO: Table = {"include": "Globs from the top of the repository; only these files are checked out."}
ARTIFACT: Table = {
    "path": "A file or folder, relative to the working directory.",
    "save": "Also saved at this interval while the job runs, like `10m`.",
}
RESOURCES: Table = {
    "cpu": "Cores; without it a job counts as one and isn't limited.",
    "memory": "Like `512MiB` or `32GB`.",
    "gpu": "How many GPUs, or their count, name and memory. `V100/gpu: 1` asks for one of a kind.",
    "shm-size": "Shared memory; half the memory limit, or else 1 GB.",
    "interruptible": "Whether the job may run where the machine can be taken away.",
}
CPU: Table = {"count": "Cores."}
GPU: Table = {
    "count": "How many; 1.",
    "name": "Words of the name that `nvidia-smi` shows, like `A100`.",
    "memory": "Of each, at least; like `40GB`.",
}
RETRY: Table = {
    "attempts": "How many attempts more.",
    "on": "The reasons after which to try again; without it every failure.",
    "backoff": "How long to wait before, like `30s`.",
}
MATRIX: Table = {
    "include": "Combinations more, each with a value for every name.",
    "exclude": "Combinations that agree with one of these are left out.",
}
WORKFLOWS_FILE: Table = {"workflows": "The workflows of this repository."}
VARIABLES_FILE: Table = {"variables": "Variables by section: `global`, or the name of a workflow."}
SETTINGS: Table = {
    "store": "Where logs and artifacts lie: `file:///path` or `s3://bucket/prefix`.",
    "lease": "Seconds after which a runner that isn't heard of is lost; 60.",
    "throttle": "`forge`: push to the state remote as rarely as to a hosted forge.",
    "endpoint_url": "The address of an S3-compatible server.",
    "region": "The region of the bucket.",
    "addressing": "How a bucket is named to its server: `path` or `virtual`.",
    "encryption": "How the S3 server is to encrypt what is stored.",
    "kms_key": "The key for that, where it is `aws:kms`.",
    "storage_class": "The storage class of what is stored.",
    "stores": "Where stores have moved: old URL to new URL.",
    "forge": "What is reported to the forge the code is on: commit statuses, a comment on pull requests.",
    "signed": "Whether only runs are executed whose every commit is signed; false.",
    "signers": "The file of those who may sign, for a controller: each user's own setting, which holds nowhere else.",
    "sign": "Whether runs are signed: true, false, or `auto` (where git is set up to sign); auto.",
    "triggers": "Who may start runs by pushing. The last rule about a branch or tag decides; without one, anybody.",
}
TRIGGER_RULE: Table = {
    "branches": "The branches it is about, as patterns. With neither branches nor tags it is about all.",
    "tags": "The tags it is about, as patterns.",
    "by": "Patterns of committers' mail addresses, which anybody can write; or `signer:` and one of verified signers.",
}
FORGE: Table = {
    "kind": "Whose API it is, where the host doesn't say: `github`, `gitlab`, `gitea` (Forgejo too).",
    "api": "Where the API is, if not in the usual place on the code's host.",
    "report": "Runs that triggers made (`triggered`), those of unchanged commits too (`all`), or `nothing`.",
    "comment": "Whether pull requests get a comment; true.",
    "web": "A web page of dstack's: statuses link to `<web>/runs/<run>`.",
}
