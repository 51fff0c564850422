#!/usr/bin/env bash
# make up and make down: Redis, three replicas and HAProxy on this machine, from the files beside this one. All listen on
# 127.0.0.1 only.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin # haproxy is there

PROGRAM=${PROGRAM:-bin/portmaster}
STATE=${STATE:-.local} # Redis's data, the logs, the ports, and a file NAME.pid for each process: its id and the time it started
PORT=${PORT:-8080}     # of HAProxy; the replicas take the next three
REDIS_PORT=${REDIS_PORT:-16379}
REPLICAS=(portmaster-1 portmaster-2 portmaster-3)
ALL=(redis "${REPLICAS[@]}" haproxy)
STARTED=() # of ALL, by this run of the script

fail() { echo "$*" >&2; exit 1; }

# port VARIABLE LAST: fail where the variable is no port up to the last.
port() {
  if ! [[ ${!1} =~ ^[1-9][0-9]{0,4}$ ]] || [ "${!1}" -gt "$2" ]; then
    fail "$1=${!1} must be a port, 1 to $2"
  fi
}

# start_time PID: when a process started, in ticks since boot, unless it has ended (Z: nobody has asked yet how it ended). It
# tells a process from a later one with the same id.
start_time() { sed -n 's/.*) \([^Z] \)/\1/p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# pid NAME: the id of a process that was started here, while it is still that process.
pid() {
  local id since
  read -r id since 2>/dev/null <"$STATE/$1.pid" && [ -n "$since" ] && [ "$(start_time "$id")" = "$since" ] && echo "$id"
}

# start NAME PORT COMMAND...: run a command that listens on the port and outlives this script, unless it runs already.
start() {
  local name=$1 port=$2
  shift 2
  if pid "$name" >/dev/null; then return; fi
  if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port, for $name, is taken: choose others with make up PORT=... REDIS_PORT=..."
  fi
  setsid "$@" >"$STATE/$name.log" 2>&1 </dev/null &
  echo "$! $(start_time $!)" >"$STATE/$name.pid"
  disown
  STARTED+=("$name")
}

# undo ends what this run started, the last first, and leaves what ran before.
undo() {
  local i
  for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do
    stop "${STARTED[i]}" TERM
    gone "${STARTED[i]}"
  done
}

# await ADDRESS: wait until the server there is ready. Where a process ends instead, say where to look.
await() {
  local name
  for _ in {1..150}; do
    for name in "${ALL[@]}"; do
      if ! pid "$name" >/dev/null; then
        tail -n 5 "$STATE/$name.log" >&2
        fail "$name does not run: see $STATE/$name.log"
      fi
    done
    if PORTMASTER_HTTP_ADDR=$1 "$PROGRAM" healthcheck >"$STATE/healthcheck.log" 2>&1; then return; fi
    sleep 0.2
  done
  cat "$STATE/healthcheck.log" >&2
  fail "not ready within 30 s: see $STATE/*.log"
}

# stop NAME SIGNAL: ask a process to end.
stop() {
  local id
  if id=$(pid "$1"); then kill -s "$2" "$id"; fi
}

# ends NAME SECONDS: wait until a process has ended, and fail if it has not by then.
ends() {
  local i
  for ((i = 0; i < $2 * 10; i++)); do
    if ! pid "$1" >/dev/null; then return 0; fi
    sleep 0.1
  done
  return 1
}

# gone NAME...: wait until processes have ended.
gone() {
  local name
  for name in "$@"; do
    if ! ends "$name" 30; then
      pid "$name"
      fail "$name, the process above, does not end: see $STATE/$name.log"
    fi
    rm -f "$STATE/$name.pid"
  done
}

up() {
  port PORT 65532
  port REDIS_PORT 65535
  if [ "$REDIS_PORT" -ge "$PORT" ] && [ "$REDIS_PORT" -le $((PORT + 3)) ]; then
    fail "REDIS_PORT=$REDIS_PORT is one of the four ports from PORT=$PORT on"
  fi
  for program in redis-server haproxy; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install $program"
  done
  mkdir -p "$STATE/redis"
  local name running=0
  for name in "${ALL[@]}"; do
    if pid "$name" >/dev/null; then running=$((running + 1)); fi
  done
  if [ $running = 0 ]; then
    echo "$PORT $REDIS_PORT" >"$STATE/ports"
  else
    read -r PORT REDIS_PORT <"$STATE/ports"
  fi
  trap undo EXIT

  start redis "$REDIS_PORT" redis-server deployments/redis/redis.conf \
    --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$STATE/redis"
  for i in 1 2 3; do
    start "portmaster-$i" $((PORT + i)) env PORTMASTER_HTTP_ADDR=127.0.0.1:$((PORT + i)) \
      PORTMASTER_REDIS_URL="redis://127.0.0.1:$REDIS_PORT" "$PROGRAM" serve
  done
  start haproxy "$PORT" env HAPROXY_BIND="127.0.0.1:$PORT" REPLICA_1="127.0.0.1:$((PORT + 1))" \
    REPLICA_2="127.0.0.1:$((PORT + 2))" REPLICA_3="127.0.0.1:$((PORT + 3))" haproxy -db -f deployments/haproxy.cfg
  for i in 1 2 3 0; do await "127.0.0.1:$((PORT + i))"; done
  trap - EXIT

  if [ $running = ${#ALL[@]} ]; then echo "It runs already."; elif [ $running != 0 ]; then echo "Started again: ${STARTED[*]}"; fi
  echo "url    http://127.0.0.1:$PORT (the map is at /ui/, the API at /docs/): HAProxy before three replicas on the next three ports"
  echo "redis  redis-cli -p $REDIS_PORT"
  echo "logs   $STATE/*.log"
  echo "end    make down, which keeps Redis's data in $STATE"
}

# down ends first who is asked and last who is asked by the others, so that no request is cut off. HAProxy goes on for as long as
# events are followed or calls wait: these end with their replica.
down() {
  local name
  stop haproxy USR1
  ends haproxy 2 || true
  for name in "${REPLICAS[@]}"; do stop "$name" TERM; done
  gone haproxy "${REPLICAS[@]}"
  stop redis TERM
  gone redis
}

"$1"
