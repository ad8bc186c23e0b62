#!/bin/sh
# Trains, by counting: counting.sh BY UNTIL FOLDER [WORTH [SECONDS]]. It knows nothing of xaytune but a descriptor to
# write to, a checkpoint to resume from, and SIGTERM.
by=$1 until=$2 folder=$3 worth=$4 seconds=${5:-0.01} count=0
trap 'echo "asked to stop at $count"; exit 0' TERM
if [ -n "$XAYTUNE_CHECKPOINT" ]; then
    count=$(cat "$XAYTUNE_CHECKPOINT")
    echo "resumed at $count"
fi
while [ "$count" -lt "$until" ]; do
    count=$((count + 1))
    echo "$count" >"$folder/count-$count" # a file of its own: the one before may still be copied
    echo "$count" >>"$folder/trained"
    echo "{\"$by\": $count, \"score\": 0.$worth$count, \"checkpoint\": \"$folder/count-$count\"}" >&"$XAYTUNE_FD"
    sleep "$seconds"
done
