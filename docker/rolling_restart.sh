#!/bin/sh
# Restart every replica of a service, one after the other, and lose no request:
#   docker/rolling_restart.sh service        ENGINE=podman where that is what runs them
# Each stops taking requests, answers what it has, and is ready again before the next one's turn.
set -eu
engine=${ENGINE:-docker}
project=${COMPOSE_PROJECT_NAME:-tosa-vqa}
ready="import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"
replicas=$("$engine" ps --quiet \
  --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1")
for replica in $replicas; do
  "$engine" stop --time 45 "$replica" >/dev/null
  "$engine" start "$replica" >/dev/null
  tries=0
  until "$engine" exec "$replica" python -I -c "$ready" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || { echo "$replica is not ready after 120 tries" >&2; exit 1; }
    sleep 1
  done
  sleep 5 # the proxy finds its address, and asks it whether it is ready
  echo "restarted $replica"
done
