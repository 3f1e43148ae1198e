#!/bin/sh
# native.sh TQD PROGRAM: the workloads of the simulation against a daemon with little memory.
set -eu
dir=$(mktemp -d)
trap 'kill "$daemon" 2>/dev/null; wait "$daemon" || true; rm -rf "$dir"' EXIT
mkfifo "$dir/ready"
"$1" all-in-one --runtime-dir "$dir/system" --ready-fd 3 -o backend.SimpleStorage.total_storage_size=3MiB \
    3>"$dir/ready" 2>"$dir/log" &
daemon=$!
read -r ready <"$dir/ready"
if [ "$ready" != ready ]; then
    cat "$dir/log"
    exit 1
fi
address=$(sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' "$dir/system/handle.json")
for seed in 1 2; do
    "$2" --address "$address" --token-file "$dir/system/token" --seed $seed --clients 6 --budget 30
done
