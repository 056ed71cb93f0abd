#!/usr/bin/env bash
# Stops what nginx_up.sh started (by pid file). --purge also removes its files.
set -u
ANCHOR_DIR=${ANCHOR_DIR:-$HOME/anchors}; N=$ANCHOR_DIR/nginx
if [ -f "$N/run/nginx.pid" ]; then kill "$(cat "$N/run/nginx.pid")" 2>/dev/null; fi
[ "${1:-}" = --purge ] && rm -rf "$N"
echo "nginx down"
