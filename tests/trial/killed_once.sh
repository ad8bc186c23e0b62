#!/bin/sh
# Is killed once, as by the kernel for want of memory, and trains an epoch the next time: killed_once.sh FOLDER.
if [ ! -e "$1/killed" ]; then
    touch "$1/killed"
    kill -9 $$
fi
echo '{"epoch": 1, "score": 0.5}' >&"$XAYTUNE_FD"
