#!/bin/sh
# From nothing to a trained model on this machine: `examples/demo.sh FOLDER`. No root, no Docker; leaves nothing running.
# Makes FOLDER/repository, a git repository of its own with the digits example, and FOLDER/results. May be repeated.
set -eu
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
examples=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: examples/demo.sh FOLDER}"
folder=$(cd "$1" && pwd)

say() { printf '\n%s\n' "$*"; }
step() { printf '\n$ %s\n' "$*"; "$@"; }

make_repository() {
    mkdir -p "$folder/repository"
    cd "$folder/repository"
    [ -d .git ] || git init --quiet
    cp -R "$examples/digits/." .
    # An identity of this repository alone, for who has none yet.
    git config user.name > /dev/null || git config --local user.name "dstack demo"
    git config user.email > /dev/null || git config --local user.email "demo@example.org"
    git add --all
    git diff --cached --quiet || git -c commit.gpgsign=false commit --quiet --no-verify -m "Add the digits example"
}

newest_run() { dstack status --last 1 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["run"])'; }

say "A git repository with three workflows, prepare -> train -> evaluate: $folder/repository"
make_repository
step dstack run evaluate --local
step dstack status
run=$(newest_run)
step dstack artifacts "$run"
step dstack artifacts "$run" --output "$folder/results/$run"

say "The trained model's metrics:"
find "$folder/results/$run" -name metrics.json -exec grep -E '"(accuracy|test_pictures)"' {} \;

say "Where everything is:"
find "$folder/results/$run" -type f | sed 's/^/  /'
say "Go on from here:
  cd $folder/repository
  export PATH=$(dirname "$(command -v dstack)"):\$PATH
  dstack logs $run
  dstack run evaluate --local --model forest
  git log --notes='dstack/$run.*/*' dstack/runs/$run"
