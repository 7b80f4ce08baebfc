#!/bin/sh
# Stands in for systemctl: a unit is a file in $UNITS, which holds its state (gone: systemd has none). Each call is noted in $UNITS/calls.
echo "$*" >> "$UNITS/calls"
command=$1; shift
case $command in
start)
    [ -e "$UNITS/hangs" ] && sleep 60
    if [ -e "$UNITS/broken" ]; then
        echo "Job for $1 failed because the control process exited with error code." >&2
        exit 1
    fi
    echo active > "$UNITS/$1" ;;
stop)
    [ "$1" = --no-block ] && shift
    if [ -e "$UNITS/refuses" ]; then
        echo "Failed to stop $1: Access denied" >&2
        exit 4
    fi
    code=0
    for unit; do
        if [ "$(cat "$UNITS/$unit" 2> /dev/null)" != gone ]; then
            echo inactive > "$UNITS/$unit"
        else
            echo "Failed to stop $unit: Unit $unit not loaded." >&2
            code=5
        fi
    done
    exit $code ;;
kill)
    echo failed > "$UNITS/$2" ;;
show)
    shift
    for unit; do
        state=$(cat "$UNITS/$unit"); [ "$state" = gone ] && state=inactive
        result=success; [ "$state" = failed ] && result=signal
        printf 'Id=%s\nActiveState=%s\nSubState=x\nResult=%s\nExecMainStatus=9\nMemoryCurrent=1048576\n' \
            "$unit" "$state" $result
        printf 'CPUUsageNSec=2500000000\nActiveEnterTimestampMonotonic=5000000\n\n'
    done ;;
list-units)
    for last; do :; done
    cd "$UNITS" || exit 1
    for unit in $last; do
        [ -e "$unit" ] && [ "$(cat "$unit")" = active ] && echo "$unit loaded active running A server"
    done
    exit 0 ;;
esac
